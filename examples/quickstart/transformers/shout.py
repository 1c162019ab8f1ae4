if "transformer" not in globals():
    from mage_ai.data_preparation.decorators import transformer


@transformer
def shout(greeting, *args, **kwargs):
    print(greeting.upper() + "!")
    return greeting.upper()
