"""Output of inline blocks: `print` and the logger of each go to its own log, by context, and nobody else's does."""

import sys
from contextvars import ContextVar
from typing import Any, TextIO, cast

from app.executors.base import LogLine
from app.executors.child import faults, logs
from app.executors.output import LINE_LIMIT, Level, LineSplitter, Meter, Sink

_current: "ContextVar[InlineOutput | None]" = ContextVar("inline_output", default=None)


class InlineOutput:
    """Where the lines of one inline attempt go; after `close` they are dropped."""

    def __init__(self, sink: Sink) -> None:
        self._meter: Meter | None = Meter(sink)
        self._splitter = LineSplitter()

    def become_current(self) -> None:
        """What the present context and the tasks made in it print goes here."""
        _current.set(self)

    def write(self, text: str) -> None:
        """Printed text, in any pieces."""
        if self._meter is not None:
            for line in self._splitter.feed(text.encode("utf-8", "backslashreplace")):
                self._meter.line(LogLine("stdout", "info", line))

    def log(self, letter: str, line: str) -> None:
        """A line of the block's logger."""
        if self._meter is not None:
            self._finish(self._meter)
            level = cast(Level, logs.LEVELS[letter])
            self._meter.line(LogLine("log", level, faults.safe(line)[:LINE_LIMIT]))

    def close(self) -> None:
        """Hand on the last line, and what was dropped."""
        meter, self._meter = self._meter, None
        if meter is not None:
            self._finish(meter)
            meter.close()

    def _finish(self, meter: Meter) -> None:
        for line in self._splitter.finish():
            meter.line(LogLine("stdout", "info", line))


class StdoutByContext:
    """Stands in for `sys.stdout` while inline blocks run: their text goes to their logs, all other where it went."""

    def __init__(self) -> None:
        self._original = sys.stdout

    def write(self, text: str) -> int:
        """Write to the present context's output."""
        output = _current.get()
        if output is None:
            return self._original.write(text)
        output.write(text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)

    def install(self) -> None:
        """Take the place of `sys.stdout`; nothing happens if it is taken already."""
        if cast(object, sys.stdout) is not self:
            self._original, sys.stdout = sys.stdout, cast(TextIO, self)

    def uninstall(self) -> None:
        """Give the place back, unless somebody else has taken it since."""
        if cast(object, sys.stdout) is self:
            sys.stdout = self._original
