if 'custom' not in globals():
    from mage_ai.data_preparation.decorators import custom


@custom
async def flaky(*args, **kwargs):
    if kwargs["retry"]["attempts"] == 1:
        raise ConnectionError("once")
    return ["a", {"b": None}]
