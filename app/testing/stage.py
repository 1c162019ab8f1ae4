"""Where blocks run in a test: in the test's own process and thread, one after the other, as often as asked.

The loop never runs while a block does. So a block may start a loop of its own, a debugger stops where it should,
and what a test has patched is patched for the block.
"""

import asyncio
import contextlib
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from app import clock
from app.executors.base import Ask, BlockCall, BlockResult, LogLine, OnAsk
from app.executors.child import asking, attempt, project, shim
from app.executors.worker import body_of, to_result
from app.models.states import Outcome
from app.testing.output import Lines
from app.testing.standins import StandIn
from app.testing.virtual import VirtualLoop


@dataclass(slots=True)
class _Job:
    call: BlockCall
    on_ask: OnAsk | None
    done: asyncio.Future[BlockResult]
    lines: list[LogLine] = field(default_factory=list)


@dataclass(slots=True)
class Stage:
    """An executor without limits. `replace`: what stands in for blocks and hooks; `takes`: virtual seconds a block."""

    loop: VirtualLoop
    replace: Mapping[str, Any] = field(default_factory=dict)
    takes: Mapping[str, float] = field(default_factory=dict)
    _jobs: deque[_Job] = field(default_factory=deque)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self) -> None:
        """Nothing to make ready."""

    async def stop(self) -> None:
        """Nothing runs outside a call."""

    def cut(self) -> None:
        """Nothing runs outside a call."""

    async def acquire(self, python: str | None) -> "Place":
        """A place; there is always one."""
        return Place(self)

    def acquire_now(self, python: str | None) -> "Place":
        """A place; there is always one."""
        return Place(self)

    async def perform(self, job: _Job) -> BlockResult:
        """Have a job done as soon as the loop has stopped for it."""
        self._jobs.append(job)
        self.tell()
        return await job.done

    def tell(self) -> None:
        """Let :meth:`until` look again."""
        self._news.set()

    def until(self, done: Callable[[], bool]) -> None:
        """Turn the loop and do the blocks' work in turn until something is so."""
        while not done():
            if self._jobs:
                self._do(self._jobs.popleft())
            else:
                self.loop.run_until_complete(self._wait())

    async def _wait(self) -> None:
        await self._news.wait()
        self._news.clear()

    def _do(self, job: _Job) -> None:
        if job.done.done():  # it was cancelled before its turn
            return
        call = orjson.loads(body_of(job.call))
        name, kind = call["block"], call["type"]
        file = StandIn.of(call, self.replace[name]) if name in self.replace else None
        before = clock.monotonic()
        outer, asking.Line.direct = asking.Line.direct, lambda name, payload: self._ask(job, name, payload)
        try:
            with Lines(job.lines.append) as lines, contextlib.chdir(job.call.project):
                found = attempt.run(call, lines.stdout, file)
        finally:
            asking.Line.direct = outer
        if (found.get("error") or {}).get("type") == "KeyboardInterrupt":
            raise KeyboardInterrupt(f"in {kind} '{name}'")
        found["metrics"] = {"duration_s": round(clock.monotonic() - before, 6)}
        if not job.done.done():
            job.done.set_result(to_result(found))

    def _ask(self, job: _Job, name: str, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        """The answer to a block's question; meanwhile the others go on."""
        if job.on_ask is None:
            return {"error": {"type": "NotSupported", "message": f"nobody answers '{name}' here"}}
        replies: list[Mapping[str, Any]] = []

        def answer(reply: Mapping[str, Any]) -> None:
            replies.append(reply)
            self.tell()

        job.on_ask(Ask(name, payload, answer))
        self.until(lambda: bool(replies))
        return replies[0]


@dataclass(slots=True)
class Place:
    """One place of the stage."""

    _stage: Stage
    _killed: asyncio.Future[Outcome] | None = None

    async def run(
        self, call: BlockCall, on_line: Callable[[LogLine], None], on_ask: OnAsk | None = None
    ) -> BlockResult:
        """Run one attempt, then let pass the time that it is said to take."""
        killed = self._killed = self._stage.loop.create_future()
        job = _Job(call, on_ask, self._stage.loop.create_future())
        result = await self._stage.perform(job)
        for line in job.lines:
            on_line(line)
        takes = self._stage.takes.get(call.block.uuid, 0.0) if call.hook is None else 0.0
        if takes:
            await asyncio.wait((killed,), timeout=takes)
        if killed.done():
            return BlockResult(killed.result(), evidence={"cause": "kill"})
        return result

    async def kill(self, outcome: Outcome, reason: str) -> None:
        """End the attempt in flight with an outcome of its own."""
        if self._killed is not None and not self._killed.done():
            self._killed.set_result(outcome)

    def lend(self) -> None:
        """There are places enough."""

    async def reclaim(self) -> None:
        """Nothing was lent."""

    def release(self) -> None:
        """There are places enough."""


@contextlib.contextmanager
def importable(folder: Path) -> Iterator[None]:
    """The project and the decorators can be imported as in a worker; what was imported of it is forgotten after."""
    path, finders, known = sys.path[:], sys.meta_path[:], set(sys.modules)
    caches, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    project.extend_path(str(folder))
    shim.install()
    try:
        yield
    finally:
        sys.path[:], sys.dont_write_bytecode = path, caches
        if shim.ShimFinder not in finders:
            shim.uninstall()
        sys.meta_path[:] = finders
        inside = str(folder) + os.sep
        for name in set(sys.modules) - known:
            if (getattr(sys.modules[name], "__file__", None) or "").startswith(inside):
                del sys.modules[name]
