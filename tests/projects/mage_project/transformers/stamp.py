import time

if 'transformer' not in globals():
    from mage_ai.data_preparation.decorators import transformer


@transformer
def transform(name, *args, **kwargs):
    return {"name": name, "at": time.time()}
