"""The program on a terminal whose other end the test holds; nothing waits without an end."""

import os
import pty
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.cli.conftest import BIN, environment

LIMIT_S = 60.0


@dataclass
class Terminal:
    """What is typed, and what is shown."""

    program: subprocess.Popen[bytes]
    end: int
    shown: bytes = b""
    deadline: float = field(default_factory=lambda: time.monotonic() + LIMIT_S)

    def type(self, text: str) -> None:
        os.write(self.end, text.encode())

    def until(self, words: str) -> None:
        """Read until these words are shown."""
        while words.encode() not in self.shown:
            assert self._read(), f"it has ended: {self.shown!r}"

    def rest(self) -> str:
        """Read until the program has ended; all that was shown."""
        while self._read():
            pass
        self.program.wait(LIMIT_S)
        return self.shown.decode()

    def _read(self) -> bytes:
        left = max(0.0, self.deadline - time.monotonic())
        assert select.select([self.end], [], [], left)[0], f"nothing more within {LIMIT_S} s: {self.shown!r}"
        try:
            chunk = os.read(self.end, 65536)
        except OSError:  # the other end is closed
            return b""
        self.shown += chunk
        return chunk


@contextmanager
def on_terminal(*arguments: str | Path, term: str = "xterm", stderr: int | None = None) -> Iterator[Terminal]:
    """`runwright` on a terminal of 100 columns, `stderr` where it is told; killed if it still runs at the end."""
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(
            [BIN / "runwright", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs if stderr is None else stderr,
            env=environment(TERM=term, COLUMNS="100"),
        ) as program:
            os.close(theirs)
            try:
                yield Terminal(program, ours)
            finally:
                program.kill()
    finally:
        os.close(ours)
