if 'callback' not in globals():
    from mage_ai.data_preparation.decorators import callback


@callback
def broken(*args, **kwargs):
    raise RuntimeError("a callback that fails hurts nobody")
