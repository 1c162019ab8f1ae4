"""An engine on each database, whose blocks are functions of the test: a small executor, no process.

`Scripted` implements the executor's protocol honestly: it runs, can be killed, and reports lines. What a block
does is told by `plays[block uuid]`, an async function of the call.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app import clock
from app.executors.base import BlockCall, BlockError, BlockResult, LogLine
from app.models.rows import BlockRow, RunRow
from app.models.states import BlockStatus, Outcome
from app.pipelines.catalogue import Catalogue
from app.scheduler import catchup
from app.scheduler.engine import Engine, running
from app.scheduler.launch import LaunchRequest
from app.settings import Settings
from app.store import runs
from tests.invariants import assert_hold
from tests.waits import until as until  # for the tests of this folder

Play = Callable[[BlockCall], Awaitable[BlockResult]]


def done(*values: Any) -> BlockResult:
    return BlockResult(Outcome.COMPLETED, outputs=[{"kind": "json", "value": v} for v in values])


def failed(message: str = "boom") -> BlockResult:
    return BlockResult(
        Outcome.FAILED, error=BlockError("ValueError", message, "custom/x.py", 3, f"ValueError: {message}")
    )


async def _completes(call: BlockCall) -> BlockResult:
    return done(call.block.uuid)


class Slot:
    """One place; `kill` cancels the play as a real one kills a process."""

    def __init__(self, executor: "Scripted") -> None:
        self._executor = executor
        self._task: asyncio.Task[BlockResult] | None = None
        self._killed: tuple[Outcome, str] | None = None
        self._lent = False

    async def run(
        self, call: BlockCall, on_line: Callable[[LogLine], None], on_ask: Any = None
    ) -> BlockResult:
        self._killed = None
        executor = self._executor
        executor.calls.append(call)
        on_line(LogLine("stdout", "info", f"{call.block.uuid} attempt {call.attempt}"))
        self._task = asyncio.ensure_future(executor.plays.get(call.block.uuid, _completes)(call))
        self.on_ask = on_ask
        executor.at_once = max(executor.at_once, executor.busy + 1)
        executor.busy += 1
        try:
            return await self._task
        except asyncio.CancelledError:
            if self._killed is None:
                raise
            return BlockResult(self._killed[0], evidence={"reason": self._killed[1]})
        finally:
            executor.busy -= 1
            self._task = None

    async def kill(self, outcome: Outcome, reason: str) -> None:
        if self._task is not None and not self._task.done():
            self._killed = (outcome, reason)
            self._task.cancel()
            self._executor.kills.append(reason)

    def lend(self) -> None:
        self._lent = True
        self._executor.places.release()

    async def reclaim(self) -> None:
        await self._executor.places.acquire()
        self._lent = False

    def release(self) -> None:
        if not self._lent:
            self._executor.places.release()


class Scripted:
    """An executor with `size` places."""

    def __init__(self, size: int = 4) -> None:
        self.places = asyncio.Semaphore(size)
        self.plays: dict[str, Play] = {}
        self.calls: list[BlockCall] = []
        self.kills: list[str] = []
        self.slots: list[Slot] = []
        self.busy = self.at_once = self.cuts = 0

    async def start(self) -> None: ...

    def cut(self) -> None:
        self.cuts += 1

    async def stop(self) -> None:
        for slot in self.slots:
            await slot.kill(Outcome.LOST, "the service is stopping")

    async def acquire(self, python: str | None) -> Slot:
        await self.places.acquire()
        return self._slot()

    def acquire_now(self, python: str | None) -> Slot | None:
        if self.places.locked():
            return None
        self.places._value -= 1  # asyncio.Semaphore has no acquire_nowait
        return self._slot()

    def _slot(self) -> Slot:
        slot = Slot(self)
        self.slots.append(slot)
        return slot

    def ran(self) -> list[str]:
        return [call.block.uuid for call in self.calls]


class World:
    """A project folder, a database and the engines that serve it, one at a time."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        self.executor = Scripted()
        self.inline: Scripted | None = None

    def pipeline(self, uuid: str, blocks: Mapping[str, Any], **top: Any) -> None:
        """Write a pipeline: block -> list of upstreams, or a mapping of block keys."""
        import yaml

        folder = self.folder / "pipelines" / uuid
        folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "custom").mkdir(exist_ok=True)
        listed = []
        for name, what in blocks.items():
            keys = what if isinstance(what, dict) else {"upstream_blocks": what}
            kind = keys.get("type", "custom")
            place = self.folder / {"custom": "custom", "sensor": "sensors"}[kind]
            place.mkdir(exist_ok=True)
            (place / f"{name}.py").write_text("# played by the test\n")
            listed.append({"uuid": name, "type": kind, "language": "python", **keys})
        text = yaml.safe_dump({"uuid": uuid, "name": uuid, "type": "python", "blocks": listed, **top})
        (folder / "metadata.yaml").write_text(text)

    def triggers(self, uuid: str, *entries: Mapping[str, Any]) -> None:
        import yaml

        text = yaml.safe_dump(
            {"triggers": [{"status": "active", "schedule_type": "time", **e} for e in entries]}
        )
        (self.folder / "pipelines" / uuid / "triggers.yaml").write_text(text)

    def settings(self, **values: Any) -> Settings:
        home = self.folder / ".runwright"
        given = {"project": self.folder, "home": home, "database_url": self.url, "drain_s": 0.0, "workers": 4}
        return Settings(**{**given, **values})

    def engine(self, *, scheduling: bool = False, **values: Any) -> Engine:
        catalogue = Catalogue(self.folder, {}, catchup.judge)
        catalogue.refresh()
        return Engine(
            self.settings(**values),
            catalogue,
            make_executors=lambda node_id, dead: (self.executor, self.inline),
            scheduling=scheduling,
        )

    @asynccontextmanager
    async def serving(self, **values: Any) -> AsyncIterator[Engine]:
        """An engine in this loop; the invariants hold when it has stopped serving."""
        engine = self.engine(**values)
        async with running(engine):
            yield engine
            await assert_hold(engine.db)

    async def run(self, engine: Engine, uuid: str, **request: Any) -> tuple[RunRow, dict[str, BlockRow]]:
        """Launch a pipeline and wait for its end."""
        launched = await engine.launch(LaunchRequest(pipeline_uuid=uuid, **request))
        assert await engine.wait(launched.id, 20)
        return await self.look(engine, launched.id)

    async def look(self, engine: Engine, run_id: int) -> tuple[RunRow, dict[str, BlockRow]]:
        run = await engine.db.read(runs.get, run_id)
        assert run is not None
        return run, {block.block_uuid: block for block in await engine.db.read(runs.blocks, run_id)}


def statuses(blocks: Mapping[str, BlockRow]) -> dict[str, BlockStatus]:
    return {uuid: block.status for uuid, block in blocks.items()}


def world_on(url: str, folder: Path) -> World:
    """A project without pipelines, on a database."""
    folder.mkdir(exist_ok=True)
    (folder / "metadata.yaml").write_text("name: project\n")
    return World(folder, url)


@pytest.fixture
async def world(database_url: str, tmp_path: Path) -> AsyncIterator[World]:
    found = world_on(database_url, tmp_path / "project")
    yield found
    clock.use(None)  # a test may have held it
    await asyncio.to_thread(shutil.rmtree, found.folder, ignore_errors=True)
