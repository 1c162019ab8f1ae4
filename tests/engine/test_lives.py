"""A node that is fenced goes on as another one in the same process; nothing of the old one runs or writes."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from app import clock
from app.errors import LeaseLost, StoreUnavailable
from app.executors.base import BlockCall, BlockResult
from app.models.states import NodeState, Outcome, RunStatus
from app.scheduler.engine import Engine, running
from app.scheduler.launch import LaunchRequest
from app.scheduler.lives import Lives, living
from app.store import nodes
from tests.engine.conftest import Scripted, World, done, until, world_on
from tests.invariants import assert_hold
from tests.soak.proxy import wire

LEASE_S = 3.0


class Cuttable(Scripted):
    """Ends its blocks when it is cut, from whatever thread, as the warden does with processes."""

    def __init__(self) -> None:
        super().__init__()
        self.was_cut = threading.Event()
        self.threads: list[str] = []

    def cut(self) -> None:
        super().cut()
        self.threads.append(threading.current_thread().name)
        self.was_cut.set()


def cuttable_on(url: str, folder: Path) -> World:
    world = world_on(url, folder)
    world.executor = Cuttable()
    world.pipeline("etl", {"a": [], "b": ["a"]})
    return world


class Served:
    """What is outside of the engine: it asks the life that came up last."""

    def __init__(self, first: Engine) -> None:
        self.engine = first
        self.lives: list[Engine] = []

    def is_up(self, engine: Engine) -> None:
        self.engine = engine
        self.lives.append(engine)


@asynccontextmanager
async def served(world: World, **values: Any) -> AsyncIterator[Served]:
    first = world.engine(scheduling=True, **{"lease_s": LEASE_S, **values})
    it = Served(first)
    async with living(Lives(first, it.is_up)):
        yield it


def held_back(world: World) -> tuple[asyncio.Event, asyncio.Event]:
    """Block `a` hangs at its first attempt, until its process is ended; then it completes."""
    entered, hang = asyncio.Event(), asyncio.Event()

    async def play(call: BlockCall) -> BlockResult:
        if call.attempt == 1:
            entered.set()
            await hang.wait()
        return done(call.attempt)

    world.executor.plays["a"] = play
    return entered, hang


async def completed_by_a_later_life(world: World, it: Served, run_id: int) -> None:
    """By the second one as a rule; on a busy machine so short a lease may be lost once more."""
    first = it.lives[0]
    await until(lambda: len(it.lives) > 1, 30)
    async with asyncio.timeout(60):
        while not await over(it.engine, run_id):
            await asyncio.sleep(0.1)
    db = it.engine.db
    run, blocks = await world.look(it.engine, run_id)
    assert run.status is RunStatus.COMPLETED
    assert run.owner in [life.node_id for life in it.lives[1:]]
    assert blocks["a"].attempts[0].outcome is Outcome.LOST
    state = text("SELECT state FROM node WHERE id = :id")
    assert await db.read(lambda tx: tx.execute(state, {"id": first.node_id}).scalar_one()) == NodeState.FENCED
    await assert_hold(db)


async def over(engine: Engine, run_id: int) -> bool:
    try:
        return await engine.wait(run_id, 5)
    except StoreUnavailable:
        return False


async def test_a_fenced_node_registers_anew_and_its_run_goes_on(postgres_url: str, tmp_path: Path) -> None:
    world = cuttable_on(postgres_url, tmp_path / "project")
    entered, _ = held_back(world)
    async with served(world) as it:
        first = it.engine
        run = await first.launch(LaunchRequest(pipeline_uuid="etl"))
        await entered.wait()
        await first.db.write(nodes.fence, [first.node_id], now=clock.now())
        await completed_by_a_later_life(world, it, run.id)
        assert isinstance(world.executor, Cuttable)
        assert world.executor.threads[0] == "lease"
        assert (first.is_lost, first.ready, first.closing) == (True, False, True)
        with pytest.raises(StoreUnavailable):
            await first.launch(LaunchRequest(pipeline_uuid="etl"))


async def test_a_loop_that_hangs_loses_its_lease_and_its_user_code_at_once(
    postgres_url: str, tmp_path: Path
) -> None:
    """The loop stands still until user code is ended: only another thread can do that."""
    world = cuttable_on(postgres_url, tmp_path / "project")
    entered, _ = held_back(world)
    assert isinstance(world.executor, Cuttable)
    async with served(world) as it:
        run = await it.engine.launch(LaunchRequest(pipeline_uuid="etl"))
        await entered.wait()
        assert world.executor.was_cut.wait(20)
        assert it.engine.is_lost
        assert not it.engine.ready
        await completed_by_a_later_life(world, it, run.id)


async def test_a_node_outlives_a_database_that_is_away_longer_than_its_lease(
    postgres_url: str, tmp_path: Path
) -> None:
    async with wire(postgres_url) as proxy:
        world = cuttable_on(proxy.url, tmp_path / "project")
        entered, _ = held_back(world)
        async with served(world) as it:
            first = it.engine
            run = await first.launch(LaunchRequest(pipeline_uuid="etl"))
            await entered.wait()
            await proxy.down()
            await until(lambda: first.is_lost)
            await until(lambda: not first.fleet.active)
            with pytest.raises(StoreUnavailable):
                await first.launch(LaunchRequest(pipeline_uuid="etl"))
            await proxy.up()
            await completed_by_a_later_life(world, it, run.id)


async def test_a_short_absence_of_the_database_costs_nothing(postgres_url: str, tmp_path: Path) -> None:
    """A block that ends meanwhile keeps its result, which is written when the database is back."""
    async with wire(postgres_url) as proxy:
        world = cuttable_on(proxy.url, tmp_path / "project")
        world.pipeline("etl", {"a": []})
        entered, hang = held_back(world)
        async with running(world.engine(lease_s=30)) as engine:
            run = await engine.launch(LaunchRequest(pipeline_uuid="etl"))
            await entered.wait()
            await proxy.down()
            hang.set()
            await until(lambda: bool(engine._journal._in_flight))
            await proxy.up()
            assert await engine.wait(run.id, 20)
            found, blocks = await world.look(engine, run.id)
            assert found.status is RunStatus.COMPLETED
            assert [a.outcome for a in blocks["a"].attempts] == [Outcome.COMPLETED]


async def test_a_service_whose_database_is_away_after_a_fence_can_be_stopped(
    postgres_url: str, tmp_path: Path
) -> None:
    async with wire(postgres_url) as proxy:
        world = cuttable_on(proxy.url, tmp_path / "project")
        async with asyncio.timeout(40), served(world) as it:
            await proxy.down()
            await until(lambda: it.engine.is_lost)


async def test_a_fenced_node_that_comes_up_again_in_vain_tries_again(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = cuttable_on(postgres_url, tmp_path / "project")
    tries: list[str] = []
    start = Engine.start

    async def stumbles(engine: Engine, group: asyncio.TaskGroup) -> None:
        tries.append(engine.node_id)
        await start(engine, group)
        if len(tries) == 2:
            raise LeaseLost("lost while it came up")

    monkeypatch.setattr(Engine, "start", stumbles)
    async with served(world, lease_s=10) as it:  # the last one must not be lost by itself
        await it.engine.db.write(nodes.fence, [it.engine.node_id], now=clock.now())
        await until(lambda: len(it.lives) == 2, 30)
        assert [life.node_id for life in it.lives] == [tries[0], tries[2]]


async def test_what_the_journal_was_given_before_the_fence_is_not_written_after_it(
    postgres_url: str, tmp_path: Path
) -> None:
    """No other node has fenced this one yet: it is its own reckoning that forbids the write."""
    async with wire(postgres_url) as proxy:
        world = cuttable_on(proxy.url, tmp_path / "project")
        world.pipeline("etl", {"a": []})
        entered, hang = held_back(world)
        async with running(world.engine(lease_s=LEASE_S)) as engine:
            run = await engine.launch(LaunchRequest(pipeline_uuid="etl"))
            await entered.wait()
            await proxy.down()
            hang.set()
            await until(lambda: engine.is_lost)
            await proxy.up()
            await until(lambda: not engine._journal._in_flight)
            _, blocks = await world.look(engine, run.id)
            assert [a.outcome for a in blocks["a"].attempts] == [None]
