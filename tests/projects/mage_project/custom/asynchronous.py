import asyncio

if 'custom' not in globals():
    from mage_ai.data_preparation.decorators import custom


@custom
async def wait_a_little(*args, **kwargs):
    await asyncio.sleep(0)
    return "awaited"
