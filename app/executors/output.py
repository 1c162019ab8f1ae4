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
#: lines handed on in one turn of the loop at most: who prints without pause must not hold it
_LINES_AT_ONCE = 500
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
        #: read, and left for the next turn; of such a stream nothing more is read meanwhile
        self._kept: dict[Stream, bytes] = {}
        self._meter: Meter | None = None
        for stream, fd in self._fds.items():
            os.set_blocking(fd, False)
            loop.add_reader(fd, self._readable, stream)

    def begin(self, sink: Sink) -> None:
        """From here on the lines belong to this sink; what a worker writes while it has none is dropped."""
        self._splitters = {stream: LineSplitter() for stream in self._fds}
        self._kept.clear()
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
            while left > 0 and (size := self._read(stream)):
                left -= size

    def _readable(self, stream: Stream) -> None:
        """One turn of the loop: a piece of what was written; the rest in the next turns, before more is read."""
        self._read(stream)
        fd = self._fds.get(stream)
        if stream in self._kept and fd is not None:
            self._loop.remove_reader(fd)
            self._loop.call_soon(self._go_on, stream)

    def _go_on(self, stream: Stream) -> None:
        fd = self._fds.get(stream)
        if fd is not None:
            self._loop.add_reader(fd, self._readable, stream)
            if stream in self._kept:
                self._readable(stream)

    def _read(self, stream: Stream) -> int:
        """Take a piece of what was kept, or read once; the number of bytes."""
        if kept := self._kept.pop(stream, b""):
            return self._take(stream, kept)
        fd = self._fds.get(stream)
        if fd is None:
            return 0
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return 0
        if not data:
            self._shut(stream)
            return 0
        return self._take(stream, data)

    def _take(self, stream: Stream, data: bytes) -> int:
        """Hand lines on, and keep what is too much for one turn; the number of bytes that are done with."""
        meter = self._meter
        if meter is None:
            return len(data)
        if meter.full:
            meter.drop(len(data))
            return len(data)
        size = _end_of_lines(data, _LINES_AT_ONCE)
        for text in self._splitters[stream].feed(data[:size]):
            _emit(meter, stream, text)
        if size < len(data):
            self._kept[stream] = data[size:]
        return size

    def _shut(self, stream: Stream) -> None:
        fd = self._fds.pop(stream, None)
        if fd is not None:
            self._loop.remove_reader(fd)
            os.close(fd)


def _end_of_lines(data: bytes, count: int) -> int:
    """Where the first `count` lines end.

    >>> _end_of_lines(b"a\\nb\\nc\\n", 2), _end_of_lines(b"a\\nb", 2)
    (4, 3)
    """
    if data.count(b"\n") <= count:
        return len(data)
    end = 0
    for _ in range(count):
        end = data.index(b"\n", end) + 1
    return end


def _emit(meter: Meter, stream: Stream, text: str) -> None:
    """One line; a logger's line is marked, and may follow the beginning of a printed one."""
    printed, mark, logged = text.partition(logs.MARK) if stream == "stdout" else (text, "", "")
    if printed or not mark:
        meter.line(LogLine(stream, "info", printed))
    if mark:
        level = cast(Level, logs.LEVELS.get(logged[:1], "info"))
        meter.line(LogLine("log", level, logged[1:]))
