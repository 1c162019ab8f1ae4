import time

if 'custom' not in globals():
    from mage_ai.data_preparation.decorators import custom


@custom
def work(*args, **kwargs):
    print("working", flush=True)
    time.sleep(60)
