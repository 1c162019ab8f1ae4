if 'sensor' not in globals():
    from mage_ai.data_preparation.decorators import sensor


@sensor
def check(item, *args, **kwargs) -> bool:
    return item > 0
