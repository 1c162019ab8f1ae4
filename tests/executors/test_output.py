"""Output that comes faster than anybody can read it: taken in pieces, so that the loop turns, and none is lost."""

import asyncio
import os
from collections.abc import AsyncIterator

import pytest

from app.executors.base import LogLine
from app.executors.output import Output


class Pipes:
    """Both pipes of a worker that is not there."""

    def __init__(self) -> None:
        out, self.stdout = os.pipe()
        err, self.stderr = os.pipe()
        self.lines: list[LogLine] = []
        self.output = Output(asyncio.get_running_loop(), out, err)

    def close(self) -> None:
        self.output.close()
        os.close(self.stdout)
        os.close(self.stderr)


@pytest.fixture
async def pipes() -> AsyncIterator[Pipes]:
    pipes = Pipes()
    yield pipes
    pipes.close()


async def test_no_turn_of_the_loop_takes_more_than_some_lines(pipes: Pipes) -> None:
    pipes.output.begin(pipes.lines.append)
    sent = b"".join(b"%d\n" % n for n in range(10_000))
    assert os.write(pipes.stdout, sent) == len(sent)
    turns = []
    async with asyncio.timeout(10):
        while len(pipes.lines) < 10_000:
            before = len(pipes.lines)
            await asyncio.sleep(0)
            turns.append(len(pipes.lines) - before)
    assert max(turns) <= 500
    assert [int(line.text) for line in pipes.lines] == list(range(10_000)), "in order, all of them"


async def test_what_was_kept_for_the_next_turn_comes_before_the_end(pipes: Pipes) -> None:
    pipes.output.begin(pipes.lines.append)
    os.write(pipes.stdout, b"\n" * 2000 + b"last")
    os.write(pipes.stderr, b"x\n" * 2000)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    pipes.output.end()
    assert [line.stream for line in pipes.lines].count("stderr") == 2000
    assert [line.text for line in pipes.lines if line.stream == "stdout"] == [""] * 2000 + ["last"]


async def test_nothing_kept_reaches_the_next_attempt(pipes: Pipes) -> None:
    pipes.output.begin(pipes.lines.append)
    os.write(pipes.stdout, b"old\n" * 2000)
    await asyncio.sleep(0)
    pipes.output.end()
    new: list[LogLine] = []
    pipes.output.begin(new.append)
    os.write(pipes.stdout, b"new\n")
    async with asyncio.timeout(10):
        while not new:
            await asyncio.sleep(0)
    assert [line.text for line in new] == ["new"]
