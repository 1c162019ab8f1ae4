"""What a long proof prints is also a file: `reports/<name>-<time>.txt`, or in the folder that REPORTS names."""

import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import UTC, datetime
from io import TextIOBase
from pathlib import Path
from typing import TextIO


class _Both(TextIOBase):
    """Writes to two streams at once, from any thread."""

    def __init__(self, one: TextIO, other: TextIO) -> None:
        self._streams = (one, other)

    def write(self, text: str) -> int:
        for stream in self._streams:
            stream.write(text)
        return len(text)

    def flush(self) -> None:
        for stream in self._streams:
            stream.flush()


@contextmanager
def report(name: str) -> Iterator[Path]:
    """Keep what is printed while the context lasts, between lines on the machine and the time it took."""
    folder = Path(os.environ.get("REPORTS") or "reports")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{datetime.now(UTC):%Y%m%dT%H%M%S}.txt"
    began = time.monotonic()
    with path.open("w") as file, redirect_stdout(_Both(sys.stdout, file)):
        file.write(f"{name} {' '.join(sys.argv[1:])}\n".rstrip() + "\n")
        file.write(
            f"Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n"
        )
        yield path
        file.write(f"{time.monotonic() - began:.0f} s, load {os.getloadavg()[0]:.1f}\n")
    print(f"report: {path}", flush=True)
