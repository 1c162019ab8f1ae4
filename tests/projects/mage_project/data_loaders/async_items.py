import asyncio

if 'data_loader' not in globals():
    from mage_ai.data_preparation.decorators import data_loader


@data_loader
async def load(*args, **kwargs):
    await asyncio.sleep(0)
    return [[{"n": n} for n in range(3)], [{"block_uuid": f"n{n}", "factor": n} for n in range(3)]]
