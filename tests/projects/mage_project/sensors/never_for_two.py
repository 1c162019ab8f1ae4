if 'sensor' not in globals():
    from mage_ai.data_preparation.decorators import sensor


@sensor
def check(number, *args, **kwargs) -> bool:
    return number != 2
