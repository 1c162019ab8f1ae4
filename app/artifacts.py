"""Files of block outputs: `<folder>/<run>/<block>/<epoch>.<attempt>/…`. What is deleted of them is deleted here."""

import logging
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

log = logging.getLogger(__name__)


def remove(folder: Path, run_ids: Iterable[int]) -> list[int]:
    """Delete all files of runs; those of which nothing is left. What resists is logged, for another time."""
    gone = []
    for run_id in run_ids:
        try:
            shutil.rmtree(folder / str(run_id))
        except FileNotFoundError:
            pass
        except OSError as error:
            log.warning("the outputs of run %d stay: %s: %s", run_id, error.filename, error.strerror)
            continue
        gone.append(run_id)
    return gone


def size(folder: Path, run_ids: Iterable[int]) -> int:
    """The bytes of all files of runs."""
    found = 0
    for run_id in run_ids:
        for path, _folders, names in os.walk(folder / str(run_id)):
            for name in names:
                try:
                    found += (Path(path) / name).lstat().st_size
                except OSError:  # gone this moment
                    continue
    return found
