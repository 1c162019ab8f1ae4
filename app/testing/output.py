"""What a block prints in a test: handed on as log lines, and still printed, where pytest captures it."""

import contextlib
import io
import sys
from collections.abc import Callable
from typing import Any, Literal, cast

from app.executors.base import LogLine
from app.executors.child import logs

Level = Literal["debug", "info", "warning", "error"]


class _Stream(io.TextIOBase):
    """Takes the place of a standard stream."""

    def __init__(
        self, stream: Literal["stdout", "stderr"], sink: Callable[[LogLine], None], through: Any
    ) -> None:
        self._stream, self._sink, self._through = stream, sink, through
        self._open = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._open = (self._open + text).split("\n")
        for line in lines:
            self._line(line)
        return len(text)

    def flush(self) -> None:
        self._through.flush()

    def end(self) -> None:
        """The last line, if it has no line end."""
        if self._open:
            self._line(self._open)
            self._open = ""

    def _line(self, text: str) -> None:
        printed, mark, logged = text.partition(logs.MARK)
        if printed or not mark:
            self._sink(LogLine(self._stream, "info", printed))
        if mark:
            self._sink(LogLine("log", cast(Level, logs.LEVELS.get(logged[:1], "info")), logged[1:]))
        self._through.write(f"{printed}{logged[1:]}\n")


class Lines(contextlib.ExitStack):
    """Both standard streams while a block runs."""

    def __init__(self, sink: Callable[[LogLine], None]) -> None:
        super().__init__()
        self.stdout = _Stream("stdout", sink, sys.stdout)
        self._stderr = _Stream("stderr", sink, sys.stderr)

    def __enter__(self) -> "Lines":
        super().__enter__()
        for stream, redirect in (
            (self.stdout, contextlib.redirect_stdout(self.stdout)),
            (self._stderr, contextlib.redirect_stderr(self._stderr)),
        ):
            self.callback(stream.end)
            self.enter_context(redirect)
        return self
