if 'custom' not in globals():
    from mage_ai.data_preparation.decorators import custom


@custom
def configured(*args, **kwargs):
    return {"word": kwargs["configuration"].get("word"), "args": list(args), "block": kwargs["block_uuid"]}
