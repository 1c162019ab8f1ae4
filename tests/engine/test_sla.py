"""What is not over by its SLA is said to be so once, and ended if that is asked for; deadlines hold."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from app import clock
from app.events import SlaMissed
from app.executors.base import BlockCall, BlockResult
from app.models.rows import RunRow
from app.models.states import Cause, Outcome, RunStatus, SlotOutcome
from app.scheduler import limiting
from app.scheduler.engine import Engine
from app.scheduler.launch import LaunchRequest
from app.store import logs, nodes, runs
from app.store.db import Tx
from app.store.sql import SLOT
from tests.engine.conftest import World, done, failed, until

SENSOR = {"w": {"type": "sensor", "upstream_blocks": [], "configuration": {"interval": 600}}}


async def never(call: BlockCall) -> BlockResult:
    await asyncio.Event().wait()
    return done()


async def not_yet(call: BlockCall) -> BlockResult:
    return BlockResult(Outcome.COMPLETED, value_false=True)


async def late(engine: Engine, seconds: float = 0.3, on_sla: str = "alert", **extra: Any) -> RunRow:
    """A run that is to be over in so many seconds."""
    values = {"sla_at": clock.now() + timedelta(seconds=seconds), "options": {"on_sla": on_sla}, **extra}
    return await engine.launch(LaunchRequest(pipeline_uuid="etl"), extra=values)


async def look(engine: Engine, run: RunRow) -> RunRow:
    found = await engine.db.read(runs.get, run.id)
    assert found is not None
    return found


async def passed_sla(engine: Engine, run: RunRow) -> RunRow:
    """The row, once it says so."""

    async def late() -> RunRow | None:
        found = await look(engine, run)
        return found if found.passed_sla else None

    found: RunRow = await until(late)
    return found


@contextmanager
def told(engine: Engine) -> Iterator[Callable[[], list[SlaMissed]]]:
    """The events of SLAs so far, while the context is open."""
    found: list[SlaMissed] = []
    with engine.bus.subscribe() as events:

        def so_far() -> list[SlaMissed]:
            found.extend(event for event in events.take() if isinstance(event, SlaMissed))
            return found

        yield so_far


async def test_a_running_run_that_is_late_is_said_to_be_once_and_goes_on(world: World) -> None:
    world.pipeline("etl", {"a": []})
    gate = asyncio.Event()

    async def waits(call: BlockCall) -> BlockResult:
        await gate.wait()
        return done()

    world.executor.plays["a"] = waits
    async with world.serving() as engine:
        with told(engine) as events:
            run = await late(engine)
            found = await passed_sla(engine, run)
            assert found.status is RunStatus.RUNNING
            assert found.sla_passed_at is not None and found.sla_at is not None
            assert await engine.fleet.sla.sweep() == 0
            gate.set()
            assert await engine.wait(run.id, 10)
            ended = await look(engine, run)
            await until(lambda: not engine.fleet.knows(run.id))
            assert [event.run_id for event in events()] == [run.id]
        assert ended.status is RunStatus.COMPLETED and ended.sla_passed_at == found.sla_passed_at
        lines = await engine.db.read(logs.page, run.id, after=None, limit=50)
        assert sum("SLA passed" in line.text for line in lines) == 1
        page = await engine.db.read(runs.page, limit=9, passed_sla=True)
        assert [row.id for row in page] == [run.id]
        assert await engine.db.read(runs.page, limit=9, passed_sla=False) == []


@pytest.mark.parametrize(("on_sla", "status"), [("cancel", RunStatus.CANCELLED), ("fail", RunStatus.FAILED)])
@pytest.mark.parametrize("kind", ["running", "parked", "waiting"])
async def test_a_run_may_end_when_its_sla_passes(
    world: World, kind: str, on_sla: str, status: RunStatus
) -> None:
    world.pipeline("etl", SENSOR if kind == "parked" else {"a": []})
    world.executor.plays.update(a=never, w=not_yet)
    async with world.serving() as engine:
        if kind == "waiting":
            await limiting.put(engine, "global", 0)
        with told(engine) as events:
            run = await late(engine, seconds=2 if kind == "parked" else 0.3, on_sla=on_sla)
            if kind == "parked":
                await until(lambda: run.id in engine.fleet.parking or not engine.fleet.knows(run.id))
            if kind == "waiting":
                await until(engine.fleet.sla.sweep)
            assert await engine.wait(run.id, 10)
            found = await look(engine, run)
            await until(lambda: not engine.fleet.knows(run.id))  # what is told follows what is written
            await engine.fleet.sla.sweep()
            assert [event.run_id for event in events()] == [run.id]
        assert (found.status, found.status_reason, found.passed_sla) == (status, "sla", True)


async def test_a_run_that_was_in_time_is_never_late(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        with told(engine) as events:
            run = await late(engine, seconds=600)
            assert await engine.wait(run.id, 10)
            assert await engine.fleet.sla.sweep() == 0
            found = await look(engine, run)
            await until(lambda: not engine.fleet.knows(run.id))
            assert (found.status, found.passed_sla, events()) == (RunStatus.COMPLETED, False, [])


async def test_over_a_restart_it_is_still_said_once(world: World) -> None:
    world.pipeline("etl", {"a": []})
    world.executor.plays["a"] = never
    async with world.serving() as engine:
        run = await late(engine, timeout_s=600)
        before = await passed_sla(engine, run)
        await engine.db.write(nodes.fence, [engine.node_id], now=clock.now())
    async with world.serving() as engine:
        with told(engine) as events:
            await until(lambda: run.id in engine.fleet.active)
            assert await engine.fleet.sla.sweep() == 0
            after = await look(engine, run)
            await engine.cancel(run.id)
            assert await engine.wait(run.id, 10)
            await until(lambda: not engine.fleet.knows(run.id))
            assert after.sla_passed_at == before.sla_passed_at and events() == []
        assert after.epoch > before.epoch
        assert after.deadline_at == before.deadline_at, "a takeover gives no more time"


async def test_a_deadline_that_passed_while_nobody_was_there_ends_the_run_at_once(world: World) -> None:
    world.pipeline("etl", {"a": []})
    world.executor.plays["a"] = never
    async with world.serving() as engine:
        run = await engine.launch(LaunchRequest(pipeline_uuid="etl"), extra={"timeout_s": 0.5})
        await until(lambda: bool(world.executor.calls))
        await engine.db.write(nodes.fence, [engine.node_id], now=clock.now())
    assert run.deadline_at is not None
    while clock.now() <= run.deadline_at:
        await asyncio.sleep(0.02)
    calls = len(world.executor.calls)
    async with world.serving() as engine:
        assert await engine.wait(run.id, 10)
        found = await look(engine, run)
    assert (found.status, found.status_reason) == (RunStatus.FAILED, "timeout")
    assert len(world.executor.calls) == calls, "nothing of it ran again"


async def test_a_retry_has_the_whole_time_again(world: World) -> None:
    world.pipeline("etl", {"a": []})
    world.triggers(
        "etl",
        {"name": "t", "schedule_type": "api", "sla": 600, "settings": {"timeout": "300", "on_sla": "fail"}},
    )

    async def fails(call: BlockCall) -> BlockResult:
        return failed()

    world.executor.plays["a"] = fails
    async with world.serving(scheduling=True) as engine:
        row = await engine.triggers.named("etl", "t")
        first = await engine.triggers.launch(row.id)
        assert await engine.wait(first.id, 10)
        second = await engine.retry(first.id)
        assert await engine.wait(second.id, 10)
        old, new = await look(engine, first), await look(engine, second)
        for run in (old, new):
            assert run.started_at is not None and run.deadline_at == run.started_at + timedelta(seconds=300)
            assert run.sla_at is not None and run.sla_at <= run.created_at + timedelta(seconds=600)
            assert run.options["on_sla"] == "fail"
        assert new.sla_at is not None and old.sla_at is not None and new.sla_at > old.sla_at


async def test_a_slot_that_got_no_run_is_late_once_and_a_late_run_is_late_at_birth(world: World) -> None:
    world.pipeline("etl", {"a": []})
    world.pipeline("broken", {"a": []})
    hourly = {"name": "t", "schedule_interval": "@hourly", "sla": 1}
    world.triggers("etl", hourly)
    world.triggers("broken", hourly)
    async with world.serving(scheduling=True) as engine:
        ids = [(await engine.triggers.named(uuid, "t")).id for uuid in ("etl", "broken")]
        (world.folder / "pipelines" / "broken" / "metadata.yaml").write_text("blocks: 7\n")
        await engine.passes.sync(force=True)
        with told(engine) as events:
            await engine.db.write(_two_hours_ago, ids)
            await engine.passes.tick()

            async def all_told() -> bool:
                await engine.fleet.sla.sweep()
                return not await engine.db.read(_open_slots)

            await until(all_told)
            (run,) = await engine.db.read(runs.page, limit=9)
            assert await engine.wait(run.id, 10)
            assert await engine.fleet.sla.sweep() == 0
            await until(lambda: not engine.fleet.knows(run.id))
            found = await look(engine, run)
            late_runs = [event.run_id for event in events() if event.run_id]
            slots = [(e.pipeline_schedule_id, e.execution_date) for e in events() if not e.run_id]
        assert found.cause is Cause.TICK and found.passed_sla
        assert late_runs == [run.id]
        assert len(slots) == len(set(slots)) >= 3, (
            "one of etl was not made up for, those of broken have no run"
        )


def _two_hours_ago(tx: Tx, ids: list[int]) -> None:
    from app.store.sql import REVISION, SCHEDULE

    cursor = clock.now().replace(minute=0, second=0, microsecond=0) - timedelta(hours=2)
    due = {"cursor_at": cursor, "next_fire_at": clock.now() - timedelta(seconds=1)}
    tx.execute(SCHEDULE.update().where(SCHEDULE.c.id.in_(ids)).values(**due))
    tx.execute(REVISION.update().where(REVISION.c.schedule_id.in_(ids)).values(cursor_at=cursor))


def _open_slots(tx: Tx) -> bool:
    late = (SLOT.c.outcome == SlotOutcome.MISSED, SLOT.c.sla_passed_at.is_(None))
    return tx.execute(SLOT.select().where(*late)).first() is not None
