import os
import tempfile
from pathlib import Path

if 'sensor' not in globals():
    from mage_ai.data_preparation.decorators import sensor


@sensor
def third_time(*args, **kwargs) -> bool:
    counter = Path(tempfile.gettempdir()) / f"runwright-{os.getppid()}-{kwargs['execution_partition'].replace('/', '-')}"
    tries = int(counter.read_text()) + 1 if counter.exists() else 1
    counter.write_text(str(tries))
    print(f"asked {tries} times")
    if tries < 3:
        return False
    counter.unlink()
    return True
