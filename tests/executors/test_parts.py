"""The small pure parts: frames on the link, lines of output, arguments, places in a queue."""

import random
from typing import Any

import pytest

from app.executors.base import LogLine
from app.executors.child import calling, faults, frames
from app.executors.output import ATTEMPT_LIMIT, LINE_LIMIT, LineSplitter, Meter


def test_frames_come_out_as_they_went_in_however_they_are_cut() -> None:
    parser = frames.Parser()
    parser.token = 7
    sent = [(b'{"n":%d}' % n, b"x" * (n * 100)) for n in range(20)]
    stream = b"".join(frames.pack(7, header, body) for header, body in sent)
    rng = random.Random(1)
    received, at = [], 0
    while at < len(stream):
        size = rng.randint(1, 300)
        received += parser.feed(stream[at : at + size])
        at += size
    assert received == sent


GOOD = frames.pack(7, b"{}", b"[1]")


@pytest.mark.parametrize(
    "data",
    [
        b"j",
        b"RWx",
        b"\0",
        b"R" + GOOD,
        GOOD[:-1] + b"!",
        frames.pack(8, b"{}"),
        frames.PREFIX.pack(frames.MAGIC, 7, frames.LIMIT + 1, 2, 0),
        frames.PREFIX.pack(frames.MAGIC, 7, 2, 3, 0),
        GOOD + b"junk",
    ],
)
def test_anything_else_is_a_broken_frame(data: bytes) -> None:
    parser = frames.Parser()
    parser.token = 7
    with pytest.raises(frames.BrokenFrame):
        parser.feed(data)


def test_a_frame_beyond_the_limit_is_not_packed() -> None:
    with pytest.raises(frames.BrokenFrame, match="the limit is"):
        frames.pack(1, b"", b"x" * (frames.LIMIT + 1))


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        ([b"a\nb\n"], ["a", "b"]),
        ([b"a", b"b\n", b"c"], ["ab", "c"]),
        ([b"\n\n"], ["", ""]),
        ([b"a\r\nb\r", b"\nc\r"], ["a", "b", "c"]),
        ([b"1%\r2%\r", b"3%\n"], ["3%"]),
        ([b"\xc3", b"\xbc\n"], ["ü"]),
        ([b"\xff\0\n"], ["\ufffd\ufffd"]),
        ([b"1%\r" * 10_000 + b"done\n"], ["done"]),
        ([], []),
    ],
)
def test_bytes_become_lines(pieces: list[bytes], lines: list[str]) -> None:
    splitter = LineSplitter()
    found = [line for piece in pieces for line in splitter.feed(piece)]
    assert [*found, *splitter.finish()] == lines


def test_a_long_line_is_cut_and_what_is_missing_counted() -> None:
    splitter = LineSplitter()
    found = [line for _ in range(100) for line in splitter.feed(b"x" * 1000)]
    assert found == []
    (line,) = splitter.feed(b"\n")
    assert line == "x" * LINE_LIMIT + f" … [{100_000 - LINE_LIMIT:,} more bytes of this line were dropped]"


def test_empty_lines_count_towards_the_limit_too() -> None:
    kept: list[LogLine] = []
    meter = Meter(kept.append)
    for _ in range(ATTEMPT_LIMIT // 64 + 1000):
        meter.line(LogLine("stdout", "info", ""))
    meter.close()
    assert len(kept) == ATTEMPT_LIMIT // 64 + 2
    assert kept[-1].text == "1,000 bytes of output were dropped"


def plain(a: Any, b: Any = 1, *, c: Any = 2) -> None: ...


class Callable:
    def __call__(self, a: Any, *rest: Any, **named: Any) -> None: ...


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (plain, (1, 2, False, False)),
        (Callable(), (1, 1, True, True)),
        (Callable().__call__, (1, 1, True, True)),
        (lambda *args, **kwargs: None, (0, 0, True, True)),
    ],
)
def test_signatures_are_read(function: Any, shape: tuple[Any, ...]) -> None:
    found = calling.Signature(function)
    assert (found.least, found.most, found.varargs, found.keywords) == shape


def test_a_wrapped_function_shows_its_own_signature() -> None:
    def wrapper(*args: Any, **kwargs: Any) -> None: ...

    wrapper.__wrapped__ = plain  # type: ignore[attr-defined]
    assert calling.arguments(wrapper, [1], {"k": 1}) == ([1], {})
    with pytest.raises(faults.WrongArguments):
        calling.arguments(wrapper, [1, 2, 3], {})


def test_a_sensor_that_names_no_parameter_gets_no_inputs() -> None:
    assert calling.arguments(lambda **kwargs: None, [1, 2], {"k": 1}, lenient=True) == ([], {"k": 1})
    assert calling.arguments(lambda *args: None, [1, 2], {}, lenient=True) == ([1, 2], {})


@pytest.mark.parametrize(
    ("function", "outputs", "given"),
    [
        (lambda output, *args: None, [], [None]),
        (lambda output: None, [1, 2], [1]),
        (lambda *args: None, [1, 2], [1, 2]),
        (lambda: None, [1], []),
        (lambda a, b, c=3: None, [1], [1, None]),
    ],
)
def test_a_test_gets_as_many_outputs_as_it_takes(function: Any, outputs: list[Any], given: list[Any]) -> None:
    assert calling.test_arguments(function, outputs, {})[0] == given
