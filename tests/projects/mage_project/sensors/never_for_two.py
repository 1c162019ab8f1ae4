import os
import tempfile
from pathlib import Path

if 'sensor' not in globals():
    from mage_ai.data_preparation.decorators import sensor


@sensor
def check(number, *args, **kwargs) -> bool:
    if number == 2:  # the other sensor of this run looks for it
        name = f"runwright-{os.getppid()}-{kwargs['execution_partition'].replace('/', '-')}-waits"
        (Path(tempfile.gettempdir()) / name).touch()
    return number != 2
