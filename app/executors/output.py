"""What a worker writes to stdout and stderr, cut into log lines: bounded, and safe for any database."""

import asyncio
import os
from collections.abc import Callable, Iterator
from typing import Literal, TypeAlias, cast

from app.executors.base import LogLine
from app.executors.child import logs

Sink: TypeAlias = Callable[[LogLine], None]
Level: TypeAlias = Literal["debug", "info", "warning", "error"]
Stream: TypeAlias = Literal["stdout", "stderr"]

#: longest line, in bytes; the rest of a longer one is dropped
LINE_LIMIT = 16 * 1024
#: output of one attempt that is kept, in bytes
ATTEMPT_LIMIT = 10 * 1024 * 1024
#: what a line costs at least, so that ten million empty lines are bounded too
_LINE_COST = 64
_CHUNK = 256 * 1024
#: read after the result at most, a pipe; a pipe holds 64 KiB, only a process that is still writing gives more
_DRAIN_LIMIT = 2 * 1024 * 1024


class LineSplitter:
    """Cuts bytes into lines of text.

    A carriage return overwrites what stands before it, as on a terminal: of a progress bar the last state stays.
    """

    def __init__(self) -> None:
        self._pending = bytearray()
        self._cut = 0

    def feed(self, data: bytes) -> Iterator[str]:
        """Every line that `data` completes."""
        *complete, rest = data.split(b"\n")
        for part in complete:
            self._extend(part)
            yield self._take()
        self._extend(rest)

    def finish(self) -> Iterator[str]:
        """The last line, if it has no line end."""
        if self._pending or self._cut:
            yield self._take()

    def _extend(self, part: bytes) -> None:
        self._pending += part
        if len(self._pending) > LINE_LIMIT:
            self._pending[:] = _visible(self._pending)
            self._cut += max(0, len(self._pending) - LINE_LIMIT)
            del self._pending[LINE_LIMIT:]

    def _take(self) -> str:
        text = _visible(self._pending).decode("utf-8", "replace").replace("\0", "\ufffd")
        if self._cut:
            text += f" … [{self._cut:,} more bytes of this line were dropped]"
        self._pending.clear()
        self._cut = 0
        return text


def _visible(line: bytearray) -> bytearray:
    return line.rstrip(b"\r").rpartition(b"\r")[2]


class Meter:
    """Hands the lines of one attempt on, as many as the limit allows, and says so where it cut."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._left = ATTEMPT_LIMIT
        self._dropped = 0

    @property
    def full(self) -> bool:
        """Whether everything from here on is dropped."""
        return self._left <= 0

    def drop(self, size: int) -> None:
        """Count output that nobody will see."""
        self._dropped += size

    def line(self, line: LogLine) -> None:
        """Hand one line on, or drop it."""
        if self.full:
            self.drop(len(line.text) + 1)
            return
        self._left -= max(len(line.text), _LINE_COST)
        self._sink(line)
        if self.full:
            text = f"the output limit of {ATTEMPT_LIMIT // 2**20} MiB is reached: what follows is dropped"
            self._sink(LogLine("system", "warning", text))

    def close(self) -> None:
        """Say how much was dropped."""
        if self._dropped:
            text = f"{self._dropped:,} bytes of output were dropped"
            self._sink(LogLine("system", "warning", text))


class Output:
    """The reading ends of a worker's stdout and stderr. Reads on for ever, so that a worker never blocks."""

    def __init__(self, loop: asyncio.AbstractEventLoop, stdout: int, stderr: int) -> None:
        self._loop = loop
        self._fds: dict[Stream, int] = {"stdout": stdout, "stderr": stderr}
        self._splitters: dict[Stream, LineSplitter] = {}
        self._meter: Meter | None = None
        for stream, fd in self._fds.items():
            os.set_blocking(fd, False)
            loop.add_reader(fd, self._readable, stream)

    def begin(self, sink: Sink) -> None:
        """From here on the lines belong to this sink; what a worker writes while it has none is dropped."""
        self._splitters = {stream: LineSplitter() for stream in self._fds}
        self._meter = Meter(sink)

    def note(self, text: str) -> None:
        """Put a line of our own into the attempt's log."""
        if self._meter is not None:
            self._meter.line(LogLine("system", "warning", text))

    def end(self) -> None:
        """Read what still waits in the pipes, hand on the last lines, and forget the sink."""
        self.drain()
        meter, self._meter = self._meter, None
        if meter is not None:
            for stream, splitter in self._splitters.items():
                for text in splitter.finish():
                    if meter.full:
                        meter.drop(len(text))
                    else:
                        _emit(meter, stream, text)
            meter.close()

    def close(self) -> None:
        """Stop reading and close the pipes."""
        for stream in list(self._fds):
            self._shut(stream)

    def drain(self) -> None:
        """Read what waits in the pipes now."""
        for stream in list(self._fds):
            left = _DRAIN_LIMIT
            while left > 0 and (size := self._readable(stream)):
                left -= size

    def _readable(self, stream: Stream) -> int:
        """Read once; the number of bytes."""
        fd = self._fds.get(stream)
        if fd is None:
            return 0
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return 0
        if not data:
            self._shut(stream)
        elif self._meter is not None:
            self._take(self._meter, stream, data)
        return len(data)

    def _take(self, meter: Meter, stream: Stream, data: bytes) -> None:
        if meter.full:
            meter.drop(len(data))
            return
        for text in self._splitters[stream].feed(data):
            _emit(meter, stream, text)

    def _shut(self, stream: Stream) -> None:
        fd = self._fds.pop(stream, None)
        if fd is not None:
            self._loop.remove_reader(fd)
            os.close(fd)


def _emit(meter: Meter, stream: Stream, text: str) -> None:
    """One line; a logger's line is marked, and may follow the beginning of a printed one."""
    printed, mark, logged = text.partition(logs.MARK) if stream == "stdout" else (text, "", "")
    if printed or not mark:
        meter.line(LogLine(stream, "info", printed))
    if mark:
        level = cast(Level, logs.LEVELS.get(logged[:1], "info"))
        meter.line(LogLine("log", level, logged[1:]))
