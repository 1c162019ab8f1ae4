import time

if "custom" not in globals():
    from mage_ai.data_preparation.decorators import custom


@custom
def count(*args, **kwargs):
    """Counts the seconds. Three blocks of the pipeline share this file (`configuration.file_path`)."""
    for second in range(1, int(kwargs["seconds"]) + 1):
        time.sleep(1)
        print(f"{kwargs['block_uuid']}: {second}")
    return kwargs["block_uuid"]
