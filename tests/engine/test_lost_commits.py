"""The answer to a COMMIT is lost while a node serves: what was done goes on, and nobody is told that it was not."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.errors import StoreUnavailable
from app.models.states import RunStatus
from app.scheduler.engine import Engine
from app.scheduler.launch import LaunchRequest
from app.store.connecting import connect_raw
from tests.engine.conftest import World, until, world_on
from tests.soak.proxy import Proxy, wire


@pytest.fixture
async def proxy(postgres_url: str) -> AsyncIterator[Proxy]:
    async with wire(postgres_url) as found:
        yield found


@pytest.fixture
async def world(proxy: Proxy, tmp_path: Path) -> AsyncIterator[World]:
    made = world_on(proxy.url, tmp_path / "project")
    made.pipeline("etl", {"a": [], "b": ["a"]})
    yield made
    await asyncio.to_thread(shutil.rmtree, made.folder, ignore_errors=True)


async def count_of_runs(url: str) -> int:
    connection = await connect_raw(url)
    found = await connection.fetchval("SELECT count(*) FROM pipeline_run")
    await connection.close()
    return int(found)


async def test_a_launch_whose_answer_was_lost_is_made_once_and_driven(world: World, proxy: Proxy) -> None:
    async with world.serving() as engine:
        proxy.after, proxy.swallow = b"needle", b"COMMIT"
        run, _ = await world.run(engine, "etl", variables={"a": "needle"})
        assert proxy.swallowed.is_set()
        assert run.status is RunStatus.COMPLETED
        assert await count_of_runs(world.url) == 1


async def test_a_launch_that_never_arrived_is_refused_and_leaves_nothing(world: World, proxy: Proxy) -> None:
    async with world.serving() as engine:
        await world.run(engine, "etl")
        proxy.drop = b"needle"
        with pytest.raises(StoreUnavailable):
            await engine.launch(LaunchRequest(pipeline_uuid="etl", variables={"a": "needle"}))
        assert await count_of_runs(world.url) == 1
        run, _ = await world.run(engine, "etl")
        assert run.status is RunStatus.COMPLETED


async def test_a_cancel_whose_answer_was_lost_is_done(world: World, proxy: Proxy) -> None:
    async with world.serving() as engine:
        gate = asyncio.Event()

        async def held(call: object) -> object:
            await gate.wait()
            raise AssertionError("it is cancelled first")

        world.executor.plays["a"] = held  # type: ignore[assignment]
        run = await engine.launch(LaunchRequest(pipeline_uuid="etl"))
        await until(lambda: world.executor.busy == 1)
        proxy.swallow = b"COMMIT"
        asked = await engine.cancel(run.id)
        assert proxy.swallowed.is_set()
        assert asked.cancel_requested_at is not None
        assert await engine.wait(run.id, 20)
        assert (await world.look(engine, run.id))[0].status is RunStatus.CANCELLED


async def test_racing_nodes_never_deadlock_nor_idle_in_a_transaction(world: World, proxy: Proxy) -> None:
    """Sampled while two nodes launch, admit and cancel as fast as they can."""
    async with world.serving(run_slots=3) as one, world.serving(run_slots=3) as other:
        watcher = await connect_raw(world.url)
        idle: list[float] = []

        async def watch() -> None:
            while True:
                idle.append(
                    await watcher.fetchval(
                        "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - state_change)), 0)::float8"
                        " FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
                    )
                )

        async def race(engine: Engine, number: int) -> None:
            run = await engine.launch(LaunchRequest(pipeline_uuid="etl"))
            if number % 3 == 0:
                await (one if engine is other else other).cancel(run.id)
            await engine.intake.admit()

        watching = asyncio.create_task(watch())
        await asyncio.gather(*(race(engine, n) for n in range(30) for engine in (one, other)))
        await until(lambda: not one.fleet.active and not other.fleet.active, 30)
        watching.cancel()
        await asyncio.wait([watching])
        assert watching.cancelled(), "it has watched to the end"
        await watcher.close()
        assert len(idle) > 10
        assert max(idle) < 5, "a transaction waited for something that is not the database"
    # The sessions are over: all that they counted is there.
    connection = await connect_raw(world.url)
    query = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    assert await connection.fetchval(query) == 0
    await connection.close()
