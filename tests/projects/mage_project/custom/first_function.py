if 'custom' not in globals():
    from mage_ai.data_preparation.decorators import custom
if 'preprocesser' not in globals():
    from mage_ai.data_preparation.decorators import preprocesser


@preprocesser
def before(*args, **kwargs):
    print("the preprocesser runs first")


@custom
def decorated_first(*args, **kwargs):
    return helper("first")


@custom
def decorated_second(*args, **kwargs):
    raise RuntimeError("only the first decorated function runs")


def helper(text):
    return text
