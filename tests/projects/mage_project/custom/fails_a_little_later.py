import time

if 'custom' not in globals():
    from mage_ai.data_preparation.decorators import custom


@custom
def fail(*args, **kwargs):
    time.sleep(0.5)
    raise ValueError("too late")
