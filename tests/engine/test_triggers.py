"""Triggers from their files to their runs, on both databases."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from app import clock
from app.models.rows import ScheduleRow
from app.models.states import Cause, RunStatus, ScheduleStatus
from app.scheduler.engine import Engine
from app.store import runs, schedules
from app.store.db import Tx
from app.store.sql import SCHEDULE
from tests.engine import triggers
from tests.engine.conftest import World, until
from tests.engine.triggers import age


async def only(engine: Engine) -> ScheduleRow:
    (row,) = await engine.db.read(schedules.page, limit=10)
    return row


async def ledger(engine: Engine) -> list[tuple[str, str | None, int]]:
    return await triggers.ledger(engine, (await only(engine)).id)


async def test_a_trigger_in_a_file_fires_by_itself(world: World) -> None:
    world.pipeline("etl", {"a": []})
    every = {"catch_up": "all"}  # a loaded machine may be late, and then none is left out
    world.triggers(
        "etl",
        {"name": "often", "schedule_interval": "* * * * * *", "variables": {"x": 1}, "settings": every},
    )
    async with world.serving(scheduling=True) as engine:
        await until(lambda: len(world.executor.calls) >= 2)
        newest, older = (await engine.db.read(runs.page, limit=5))[:2]
        assert newest.execution_date - older.execution_date == timedelta(seconds=1)
        assert (older.cause, older.variables) == (Cause.TICK, {"x": 1})
        assert older.execution_date <= older.created_at


async def test_after_downtime_the_latest_slot_runs_and_the_rest_is_on_record(world: World) -> None:
    world.pipeline("etl", {"a": []})
    world.triggers("etl", {"name": "hourly", "schedule_interval": "@hourly"})
    async with world.serving() as engine:
        await engine.passes.sync(force=True)
        await age(engine, 5)
        await engine.passes.tick()
        await until(lambda: len(world.executor.calls) == 1)
        found = await ledger(engine)
        assert found[-1] == ("run", None, 1)
        assert found[:-1] == [("missed", "catch_up", 1)] * 4
        await engine.passes.tick()
        assert await ledger(engine) == found, "nothing is decided twice"


async def test_a_trigger_of_a_broken_pipeline_leaves_a_missed_slot_and_fires_once_mended(
    world: World,
) -> None:
    world.pipeline("etl", {"a": []})
    world.triggers("etl", {"name": "hourly", "schedule_interval": "@hourly"})
    async with world.serving() as engine:
        await engine.passes.sync(force=True)
        definition = world.folder / "pipelines" / "etl" / "metadata.yaml"
        good = definition.read_text()
        definition.write_text(good.replace("upstream_blocks: []", "upstream_blocks: [nobody]"))
        await engine.passes.sync()
        await age(engine, 1)
        await engine.passes.tick()
        assert await ledger(engine) == [("missed", "error", 1)]
        definition.write_text(good + "\n")
        await engine.passes.sync()
        await engine.passes.tick()
        assert await ledger(engine) == [("missed", "error", 1)], "a decided slot is not taken up again"


async def test_one_bad_entry_is_quarantined_and_hurts_no_other(world: World) -> None:
    world.pipeline("etl", {"a": []})
    world.triggers(
        "etl",
        {"name": "bad", "schedule_interval": "61 * * * *"},
        {"name": "good", "schedule_interval": "@daily"},
    )
    async with world.serving() as engine:
        await engine.passes.sync(force=True)
        rows = {row.name: row for row in await engine.db.read(schedules.page, limit=10)}
        assert rows["bad"].error is not None
        assert "triggers.yaml" in rows["bad"].error
        assert rows["bad"].next_fire_at is None
        assert rows["good"].error is None
        assert rows["good"].next_fire_at is not None


async def test_a_broken_row_is_quarantined_by_the_tick(world: World) -> None:
    world.pipeline("etl", {"a": []})
    world.triggers("etl", {"name": "t", "schedule_interval": "@hourly"})
    async with world.serving() as engine:
        await engine.passes.sync(force=True)
        await engine.db.write(lambda tx: tx.execute(SCHEDULE.update().values(schedule_interval="nonsense")))
        await age(engine, 1)
        await engine.passes.tick()
        row = await only(engine)
        assert row.error is not None
        assert row.next_fire_at is not None, "it is looked at again in a minute"
        assert await ledger(engine) == []
        # Mended in the table, it is taken up at the next tick; what was due meanwhile is on record.
        await engine.db.write(lambda tx: tx.execute(SCHEDULE.update().values(schedule_interval="@hourly")))
        await engine.passes.tick()
        assert (await only(engine)).error is None
        assert await ledger(engine) == [("missed", "error", 1)]


async def test_a_trigger_follows_its_file(world: World) -> None:
    world.pipeline("etl", {"a": []})
    world.triggers("etl", {"name": "t", "schedule_interval": "@hourly"})
    async with world.serving() as engine:
        await engine.passes.sync(force=True)
        before = await only(engine)
        world.triggers("etl", {"name": "t", "schedule_interval": "@daily", "description": "slower now"})
        assert await engine.passes.sync()
        after = await only(engine)
        assert (after.id, after.revision) == (before.id, before.revision + 1)
        assert (after.schedule_interval, after.description) == ("@daily", "slower now")
        assert after.cursor_at is not None
        assert before.cursor_at is not None
        assert after.cursor_at >= before.cursor_at
        assert not await engine.passes.sync(), "nothing changed: nothing is written"


async def test_a_trigger_that_is_gone_is_deactivated_and_kept(world: World) -> None:
    world.pipeline("etl", {"a": []})
    world.triggers(
        "etl", {"name": "t", "schedule_interval": "@hourly"}, {"name": "u", "schedule_interval": "@daily"}
    )
    async with world.serving() as engine:
        await engine.passes.sync(force=True)
        world.triggers("etl", {"name": "u", "schedule_interval": "@daily"})
        await engine.passes.sync()
        rows = {row.name: row.status for row in await engine.db.read(schedules.page, limit=10)}
        assert rows == {"t": ScheduleStatus.INACTIVE, "u": ScheduleStatus.ACTIVE}


async def test_once_runs_once_over_restarts(world: World) -> None:
    world.pipeline("etl", {"a": []})
    world.triggers("etl", {"name": "t", "schedule_interval": "@once"})
    for _ in range(2):
        async with world.serving(scheduling=True) as engine:
            await until(lambda: len(world.executor.calls) == 1)
            await engine.passes.tick()
            assert len(await engine.db.read(runs.page, limit=5)) == 1


async def test_always_on_starts_again_after_its_run_ends(world: World) -> None:
    world.pipeline("etl", {"a": []})
    world.triggers("etl", {"name": "t", "schedule_interval": "@always_on"})
    async with world.serving(scheduling=True) as engine:
        await until(lambda: len(world.executor.calls) >= 2)
        first, second = sorted(await engine.db.read(runs.page, limit=5), key=lambda r: r.id)[:2]
        assert second.execution_date == first.completed_at


@pytest.mark.parametrize(
    ("settings", "second"),
    [
        ({"skip_if_previous_running": True}, ("skipped", "overlap", 1)),
        ({"pipeline_run_limit": 1}, ("run", "pipeline_run_limit", 1)),
    ],
)
async def test_a_busy_trigger(world: World, settings: dict[str, Any], second: tuple[str, str, int]) -> None:
    world.pipeline("etl", {"a": []})
    world.triggers("etl", {"name": "t", "schedule_interval": "@hourly", "settings": settings})
    forever = asyncio.Event()

    async def waits(call: Any) -> Any:
        await forever.wait()

    world.executor.plays["a"] = waits
    async with world.serving() as engine:
        await engine.passes.sync(force=True)
        await age(engine, 1)
        await engine.passes.tick()
        await until(lambda: len(world.executor.calls) == 1)
        await engine.db.write(_as_if_an_hour_before)
        await engine.passes.tick()
        assert (await ledger(engine))[-1] == second
        found = await engine.db.read(runs.page, limit=5)
        if second[0] == "run":
            assert (found[0].status, found[0].status_reason) == (RunStatus.CANCELLED, "pipeline_run_limit")
        for run in found:
            await engine.cancel(run.id)
            assert await engine.wait(run.id, 5)


def _as_if_an_hour_before(tx: Tx) -> None:
    """Move everything that the trigger has decided one hour into the past."""
    from app.store.sql import RUN, SLOT

    row = tx.execute(SCHEDULE.select()).one()
    hour = timedelta(hours=1)
    for slot in tx.execute(SLOT.select().order_by(SLOT.c.execution_date)).all():
        moved = slot.execution_date - hour
        tx.execute(
            SLOT.update().where(SLOT.c.execution_date == slot.execution_date).values(execution_date=moved)
        )
    tx.execute(RUN.update().values(execution_date=row.cursor_at - hour, dedupe_key="moved"))
    tx.execute(
        SCHEDULE.update().values(
            cursor_at=row.cursor_at - hour, next_fire_at=clock.now() - timedelta(seconds=1)
        )
    )
