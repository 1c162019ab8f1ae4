if 'sensor' not in globals():
    from mage_ai.data_preparation.decorators import sensor


@sensor
def check(*args) -> bool:
    return args == (1, 20)
