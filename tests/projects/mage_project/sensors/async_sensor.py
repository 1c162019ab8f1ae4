if 'sensor' not in globals():
    from mage_ai.data_preparation.decorators import sensor


@sensor
async def check(*args, **kwargs) -> bool:
    return True
