"""What has to be on disk before anybody is told of it."""

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Let a power cut take nothing of a file any more; of a folder: no name that is in it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
