"""Two nodes on one Postgres wake each other; on SQLite there is one node and nobody to tell.

The polls are turned off here where a wake-up is what is looked at, and the wake-ups where a poll is.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.executors.base import BlockCall, BlockResult
from app.models.states import RunStatus
from app.scheduler import engine as engines
from app.scheduler import wakeups
from app.scheduler.engine import Engine
from app.scheduler.launch import LaunchRequest
from app.scheduler.triggers import TriggerDraft
from app.store import runs, signals
from app.store.connecting import connect_raw
from app.store.signals import Signals
from tests.engine.conftest import World, done, until, world_on

NEVER_S = 3600.0


@pytest.fixture
def world(postgres_url: str, tmp_path: Path) -> World:
    return world_on(postgres_url, tmp_path / "project")


@pytest.fixture
def without_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "POLL_S", NEVER_S)
    monkeypatch.setattr(engines, "RECOVER_S", NEVER_S)
    monkeypatch.setattr(wakeups, "LOOK_S", NEVER_S)


@pytest.fixture
def listeners(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The sessions that nodes listen on, as they are opened."""
    opened: list[Any] = []

    async def connect(url: str) -> Any:
        opened.append(await connect_raw(url))
        return opened[-1]

    monkeypatch.setattr(signals, "connect_raw", connect)
    return opened


def voice(engine: Engine) -> Signals:
    found = engine.wakeups._voice
    assert isinstance(found, Signals)
    return found


@asynccontextmanager
async def two(world: World, **second: Any) -> AsyncIterator[tuple[Engine, Engine]]:
    async with (
        world.serving(scheduling=True, run_slots=1) as one,
        world.serving(scheduling=True, **{"run_slots": 4, **second}) as other,
    ):
        for engine in (one, other):
            await voice(engine).listening.wait()
        yield one, other


def hold(world: World) -> asyncio.Event:
    """The block `held` waits for it."""
    gate = asyncio.Event()

    async def held(call: BlockCall) -> BlockResult:
        await gate.wait()
        return done()

    world.executor.plays["held"] = held
    return gate


async def run_on(engine: Engine, uuid: str) -> int:
    return (await engine.launch(LaunchRequest(pipeline_uuid=uuid))).id


async def test_a_run_that_a_full_node_is_given_starts_on_another_at_once(
    world: World, without_polls: None
) -> None:
    world.pipeline("long", {"held": []})
    gate = hold(world)
    async with two(world) as (one, other):
        first = await run_on(one, "long")
        await until(lambda: first in one.fleet.active)
        second = await run_on(one, "long")
        await until(lambda: second in other.fleet.active)
        gate.set()
        for engine in (one, other):
            assert await engine.wait(first, 20)
            assert await engine.wait(second, 20)


async def test_a_cancel_asked_of_one_node_stops_the_run_of_another(world: World, without_polls: None) -> None:
    world.pipeline("long", {"held": []})
    hold(world)
    async with two(world) as (one, other):
        run = await run_on(other, "long")
        await until(lambda: run in other.fleet.active)
        asked = await one.cancel(run)
        assert asked.status is RunStatus.RUNNING
        assert await one.wait(run, 20)
        found = await one.db.read(runs.get, run)
        assert found is not None and found.status is RunStatus.CANCELLED


async def test_whoever_waits_on_one_node_is_told_of_the_end_on_another(
    world: World, without_polls: None
) -> None:
    world.pipeline("long", {"held": []})
    gate = hold(world)
    async with two(world) as (one, other):
        run = await run_on(other, "long")
        await until(lambda: run in other.fleet.active)
        waiting = asyncio.create_task(one.wait(run, 20))
        await until(lambda: run in other.wakeups._followed)
        assert other.bus.listened(run), "its log lines are told too"
        gate.set()
        assert await waiting


async def test_a_changed_trigger_is_looked_at_by_every_node(world: World, without_polls: None) -> None:
    world.pipeline("short", {"a": []})
    async with two(world) as (one, other):
        ticks = asyncio.Event()
        tick = other.wakeups._actions[wakeups.TICK]

        async def noted() -> None:
            await tick()
            ticks.set()

        other.wakeups._actions = {**other.wakeups._actions, wakeups.TICK: noted}
        draft = TriggerDraft(pipeline_uuid="short", name="daily", schedule_interval="@daily", status="active")
        await one.triggers.create(draft)
        async with asyncio.timeout(10):
            await ticks.wait()


async def test_a_node_that_leaves_tells_that_its_runs_are_for_others(
    world: World, without_polls: None
) -> None:
    world.pipeline("long", {"held": []})
    gate = hold(world)
    async with world.serving(scheduling=True) as heir:
        await voice(heir).listening.wait()
        async with world.serving(scheduling=True) as leaver:
            await voice(leaver).listening.wait()
            run = await run_on(leaver, "long")
            await until(lambda: run in leaver.fleet.active)
        await until(lambda: run in heir.fleet.active)
        gate.set()
        assert await heir.wait(run, 20)


async def test_a_lost_listener_costs_a_poll_and_comes_back(world: World, listeners: list[Any]) -> None:
    """The polls are on, no word gets through: the run starts elsewhere all the same."""
    world.pipeline("long", {"held": []})
    gate = hold(world)
    async with two(world) as (one, other):
        first = await run_on(one, "long")
        await until(lambda: first in one.fleet.active)
        said, voice(one).say = voice(one).say, lambda *words: None  # type: ignore[method-assign]
        second = await run_on(one, "long")
        await until(lambda: second in other.fleet.active)
        voice(one).say = said  # type: ignore[method-assign]

        heard = asyncio.Event()
        other.wakeups._actions = {**other.wakeups._actions, wakeups.ADMIT: _sets(heard)}
        assert len(listeners) == 2
        await _end(world.url, listeners[:])
        await until(lambda: len(listeners) == 4)  # both have seen that they are deaf
        async with asyncio.timeout(10):
            await voice(one).listening.wait()
            await voice(other).listening.wait()
            await heard.wait()  # what may have been missed is looked at
            heard.clear()
            one.wakeups.tell(wakeups.ADMIT)
            await heard.wait()
        gate.set()
        assert await one.wait(first, 20)
        assert await one.wait(second, 20)


def _sets(event: asyncio.Event) -> Any:
    async def action() -> None:
        event.set()

    return action


async def _end(url: str, sessions: list[Any]) -> None:
    connection = await connect_raw(url)
    for session in sessions:
        await connection.execute("SELECT pg_terminate_backend($1)", session.get_server_pid())
    await connection.close()


async def test_many_words_leave_as_few_messages(postgres_url: str) -> None:
    heard: list[list[str]] = []
    mouth = Signals(postgres_url, "a", lambda words: None, lambda: None)
    ear = Signals(postgres_url, "b", heard.append, lambda: None)
    async with asyncio.TaskGroup() as group:
        for signals in (mouth, ear):
            group.create_task(signals.serve())
            await signals.listening.wait()
        for n in range(2000):
            mouth.say(f"run:{n}")
            mouth.say("admit")
        await until(lambda: sum(map(len, heard)) == 2001)
        assert len(heard) <= 4
        mouth.stop()
        ear.stop()


async def test_a_run_is_relayed_only_while_somebody_follows_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wakeups, "FOLLOWED_S", -1.0)  # whoever asked is gone already
    world.pipeline("short", {"a": []})
    async with two(world) as (_one, other):
        said: list[str] = []
        voice(other).say = lambda *words: said.extend(words)  # type: ignore[method-assign]
        run = await run_on(other, "short")
        other.wakeups._be_followed(run)
        said.clear()
        assert await other.wait(run, 20)
        assert f"run:{run}" not in said
        assert not other.bus._relays
