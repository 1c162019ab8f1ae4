"""The lease on Postgres: who fences whom, what a fenced node can still write, and what clocks can do about it."""

import asyncio
import logging
from contextlib import AsyncExitStack
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from app import clock
from app.models.states import NodeState, RunStatus
from app.scheduler.engine import Engine, running
from app.scheduler.launch import LaunchRequest
from app.store import nodes, ownership, runs
from app.store.db import Tx
from tests.engine.conftest import World, failed, until, world_on
from tests.invariants import assert_hold

LATER = {"upstream_blocks": [], "retry_config": {"retries": 1, "delay": 600}}


@pytest.fixture
def world(postgres_url: str, tmp_path: Path) -> World:
    return world_on(postgres_url, tmp_path / "project")


async def fails(call: Any) -> Any:
    return failed()


async def sql(engine: Engine, statement: str, **values: Any) -> list[Any]:
    def run(tx: Tx) -> list[Any]:
        result = tx.execute(text(statement), values)
        return list(result) if result.returns_rows else []

    return await engine.db.write(run)


async def states(engine: Engine) -> dict[str, str]:
    return {row.id: row.state for row in await sql(engine, "SELECT id, state FROM node")}


async def end_lease(engine: Engine, node_id: str) -> None:
    """As if the node, of another host, had been silent for a minute."""
    await sql(
        engine,
        "UPDATE node SET host_id = 'elsewhere', lease_until = clock_timestamp() - interval '1 minute' WHERE id = :id",
        id=node_id,
    )


def has_served(engine: Engine) -> None:
    """Let an engine have held its lease for as long as it takes to judge others."""
    lease = engine.member._lease
    assert lease is not None
    lease._tenure.since -= engine.settings.lease_s


async def heir_of(world: World, stack: AsyncExitStack, count: int) -> tuple[Engine, list[int]]:
    """`count` runs of a node that is dead, and the engine that fences it."""
    dead = world.engine()
    async with running(dead):
        found = [await dead.launch(LaunchRequest(pipeline_uuid="etl")) for _ in range(count)]
        await until(lambda: len(dead.fleet.parking) == count)
        await dead.db.write(nodes.fence, [dead.node_id], now=clock.now())
    return await stack.enter_async_context(world.serving()), [run.id for run in found]


# Who may fence whom


async def test_a_node_that_has_just_come_judges_nobody(world: World) -> None:
    """All leases ran out while the database was away: whoever is back first must not fence the others for it."""
    async with world.serving() as silent, world.serving() as back:
        await end_lease(back, silent.node_id)
        await back.passes.recover()
        assert (await states(back))[silent.node_id] == NodeState.LIVE
        has_served(back)
        await back.passes.recover()
        assert await states(back) == {silent.node_id: NodeState.FENCED, back.node_id: NodeState.LIVE}


async def test_a_renewal_that_comes_in_time_saves_a_node(world: World) -> None:
    """The judge has seen that the lease has ended; before it can write that, the node has renewed it."""
    async with world.serving() as late, world.serving() as judge:
        await end_lease(judge, late.node_id)
        has_served(judge)
        before = judge.member.judges()
        assert before is not None
        await sql(
            judge,
            "UPDATE node SET lease_until = clock_timestamp() + interval '9 s' WHERE id = :id",
            id=late.node_id,
        )
        assert await judge.db.write(nodes.fence_expired, judge.node_id, before=before, now=clock.now()) == []


async def test_a_node_whose_own_lease_has_ended_fences_nobody(world: World) -> None:
    async with world.serving() as silent, world.serving() as judge:
        await end_lease(judge, silent.node_id)
        await end_lease(judge, judge.node_id)
        fence = nodes.fence_expired
        assert await judge.db.write(fence, judge.node_id, before=clock.now(), now=clock.now()) == []


async def test_a_local_clock_that_is_set_changes_no_time_and_ends_no_lease(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ahead(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(days=1)

    async with world.serving() as one, world.serving() as other:
        has_served(one)
        before = clock.now()
        monkeypatch.setattr("app.clock.datetime", Ahead)
        assert clock.now() - before < timedelta(hours=1)
        await one.passes.recover()
        monkeypatch.undo()
        assert await states(one) == {one.node_id: NodeState.LIVE, other.node_id: NodeState.LIVE}


async def test_a_database_clock_that_jumps_a_day_ahead_kills_nobody_and_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The hook moves the clock of the database as the heartbeat sees it."""
    from app.store import lease

    async with world.serving(lease_s=10) as one, world.serving(lease_s=10) as other:
        has_served(one)
        assert one.member.judges() is not None
        try:
            with caplog.at_level(logging.WARNING, "app.store.lease"):
                jumped = lease._RENEW.replace("clock_timestamp()", "(clock_timestamp() + interval '1 day')")
                monkeypatch.setattr(lease, "_RENEW", jumped)
                await until(lambda: one.member.judges() is None)
                assert not one.is_lost
                assert "the database's clock has jumped by 86400 s" in caplog.text
                await one.passes.recover()
                assert set((await states(one)).values()) == {NodeState.LIVE}
                assert not other.is_lost
        finally:
            monkeypatch.undo()
            await until(lambda: clock.now() - clock.host_now() < timedelta(hours=1))


# What a fenced node can still write


async def test_a_fenced_node_takes_over_claims_and_aborts_nothing(world: World) -> None:
    world.pipeline("etl", {"a": LATER})
    world.executor.plays["a"] = fails
    async with AsyncExitStack() as stack:
        zombie, found = await heir_of(world, stack, 2)
        await sql(zombie, "UPDATE pipeline_run SET owner = owner")  # they are there, and their owner is dead
        await zombie.db.write(nodes.fence, [zombie.node_id], now=clock.now())
        me, now = zombie.node_id, clock.now()
        owned = await zombie.db.read(runs.owned, me)
        assert await zombie.db.write(ownership.takeover, me, limit=9, now=now) == []
        assert await zombie.db.write(ownership.take_over_parked, me, limit=9, now=now) == []
        assert not await zombie.db.write(ownership.retake, found[0], me, 2, now=now)
        assert not await zombie.db.write(ownership.abort, found[0], me, 2, reason="internal_error", now=now)
        waiting = await zombie.launch(LaunchRequest(pipeline_uuid="etl"))
        assert (waiting.status, waiting.owner) == (RunStatus.INITIAL, None)
        assert await zombie.db.read(runs.owned, me) == owned
        await zombie.db.write(nodes.hand_over, me, now=clock.now())
        assert (await states(zombie))[me] == NodeState.FENCED


async def test_a_claim_and_a_fence_at_once_leave_no_run_with_the_living_dead(world: World) -> None:
    """The fence waits for the claim, and the heir finds the run; or it comes first, and nothing is claimed."""
    world.pipeline("etl", {"a": []})
    async with world.serving() as claimer, world.serving() as judge:
        locked = asyncio.Event()
        loop = asyncio.get_running_loop()

        def claim_slowly(tx: Tx) -> bool:
            live = nodes.is_live(tx, claimer.node_id)
            loop.call_soon_threadsafe(locked.set)
            tx.execute(text("SELECT pg_sleep(0.3)"))
            return live

        claim = asyncio.ensure_future(claimer.db.write(claim_slowly))
        await locked.wait()
        fence = asyncio.ensure_future(judge.db.write(nodes.fence, [claimer.node_id], now=clock.now()))
        done, _ = await asyncio.wait([claim, fence], return_when=asyncio.FIRST_COMPLETED)
        assert claim in done and claim.result() is True
        assert await fence == [claimer.node_id]
        assert not await claimer.db.write(nodes.is_live, claimer.node_id)


# Shares


async def test_what_a_dead_node_leaves_is_shared_among_the_living(world: World) -> None:
    world.pipeline("etl", {"a": LATER})
    world.executor.plays["a"] = fails
    async with AsyncExitStack() as stack:
        dead = world.engine()
        async with running(dead):
            for _ in range(7):
                await dead.launch(LaunchRequest(pipeline_uuid="etl"))
            await until(lambda: len(dead.fleet.parking) == 7)
            heirs = [await stack.enter_async_context(world.serving()) for _ in range(3)]
            await dead.db.write(nodes.fence, [dead.node_id], now=clock.now())
            for heir in heirs:
                await heir.passes.poll()
            assert [len(heir.fleet.parking) for heir in heirs] == [3, 2, 1]
            await heirs[0].passes.poll()  # everybody has had a look: the rest is anybody's
            assert [len(heir.fleet.parking) for heir in heirs] == [4, 2, 1]
            dead.fleet.leave()
        await assert_hold(heirs[0].db)
