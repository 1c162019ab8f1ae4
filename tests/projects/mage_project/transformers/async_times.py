import asyncio

if 'transformer' not in globals():
    from mage_ai.data_preparation.decorators import transformer


@transformer
async def transform(item, *args, **kwargs):
    await asyncio.sleep(0)
    return item["n"] * kwargs["factor"]
