if 'transformer' not in globals():
    from mage_ai.data_preparation.decorators import transformer


@transformer
def transform(number, *args, **kwargs):
    return [[f"{number}.{part}" for part in range(number)]]
