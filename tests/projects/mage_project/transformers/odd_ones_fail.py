if 'transformer' not in globals():
    from mage_ai.data_preparation.decorators import transformer


@transformer
def transform(number, *args, **kwargs):
    if number == 2:
        raise ValueError("two is the odd one here")
    return number
