if "custom" not in globals():
    from mage_ai.data_preparation.decorators import custom


@custom
def greet(*args, **kwargs):
    print(f"hello, {kwargs['name']}")
    if kwargs["event"]:
        print(f"the caller also said {kwargs['event']}")
    return kwargs["name"]
