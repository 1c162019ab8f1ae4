import os
import tempfile
from pathlib import Path

if 'sensor' not in globals():
    from mage_ai.data_preparation.decorators import sensor


@sensor
def check(*args, **kwargs) -> bool:
    name = f"runwright-{os.getppid()}-{kwargs['execution_partition'].replace('/', '-')}-waits"
    mark = Path(tempfile.gettempdir()) / name
    if mark.exists():
        mark.unlink()
        raise ValueError("the other one waits")
    return False
