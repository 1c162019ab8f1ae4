if 'custom' not in globals():
    from mage_ai.data_preparation.decorators import custom


@custom
def answer(*args, **kwargs):
    print(f"the answer is {kwargs.get('answer')}")
    return kwargs.get("answer")
