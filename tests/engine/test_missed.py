"""Slots that were due while nobody looked: after downtime, a pause of one trigger, a pause of everything."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from app import clock
from app.errors import InvalidInput
from app.models.states import Cause, RunStatus
from app.models.system_schemas import ResumeAll
from app.routers import system
from app.scheduler.engine import Engine
from app.store import ledger as slot_ledger
from app.store import pausing, runs, schedules, slots
from app.store.db import Tx
from app.store.sql import RUN, SCHEDULE
from tests.engine.conftest import World, failed, until
from tests.engine.triggers import Late, age, ledger, look, make

HOUR = timedelta(hours=1)


async def test_all_makes_up_for_every_slot_in_order_beside_the_others(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        late = await make(engine, "late", settings={"catch_up": "all", "catch_up_limit": 30})
        other = await make(engine, "other")
        await age(engine, 40)
        await engine.passes.tick()
        assert await ledger(engine, late.id) == [("missed", "catch_up", 1)] * 10 + [("run", None, 1)] * 30
        assert await ledger(engine, other.id) == [("missed", "catch_up", 39), ("run", None, 1)]
        made = [r for r in await engine.db.read(runs.page, limit=100) if r.pipeline_schedule_id == late.id]
        dates = [run.execution_date for run in sorted(made, key=lambda run: run.id)]
        assert dates == [dates[0] + n * HOUR for n in range(30)]
        before = await look(engine, late.id)
        await engine.passes.tick()
        assert (await look(engine, late.id)).cursor_at == before.cursor_at, "nothing is made twice"


async def one_round(engine: Engine) -> None:
    ticker = engine.passes._ticker
    await ticker._round(await engine.db.read(slots.due, now=clock.now(), limit=500))


async def test_a_catch_up_that_was_broken_off_goes_on_where_it_was(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        row = await make(engine, settings={"catch_up": "all"})
        await age(engine, 50)
        await one_round(engine)  # one batch, then the node is gone
        assert await ledger(engine, row.id) == [("run", None, 1)] * 20
    async with world.serving() as engine:
        await engine.passes.tick()
        assert await ledger(engine, row.id) == [("run", None, 1)] * 50


@pytest.mark.parametrize(
    ("choice", "rows"),
    [
        (None, [("skipped", "paused", 1)] * 5),
        ("skip", [("skipped", "paused", 1)] * 5),
        ("latest", [("skipped", "paused", 1)] * 4 + [("run", None, 1)]),
        ("all", [("run", None, 1)] * 5),
    ],
)
async def test_a_resume_says_what_becomes_of_the_slots_of_the_pause(
    world: World, choice: str | None, rows: list[Any]
) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        row = await make(engine, settings={"catch_up": "none"})
        await engine.triggers.pause(row.id)
        await age(engine, 5)
        told = await engine.triggers.missed(row.id)
        assert (told.count, told.choices["latest"].runs, told.choices["all"].runs) == (5, 1, 5)
        resumed = await engine.triggers.resume(row.id, choice)
        assert resumed.next_fire_at is not None
        await engine.passes.tick()
        assert await ledger(engine, row.id) == rows
        assert (await engine.triggers.missed(row.id)).count == 0
        with pytest.raises(InvalidInput, match="skip, latest, all"):
            await engine.triggers.resume(row.id, "some")


@pytest.mark.parametrize("choice", ["skip", "latest", "all"])
async def test_no_answer_makes_once_run_twice(world: World, choice: str) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        row = await make(engine, schedule_interval="@once")
        await engine.passes.tick()
        await engine.triggers.pause(row.id)
        assert (await engine.triggers.missed(row.id)).count == 0
        await engine.triggers.resume(row.id, choice)
        await engine.passes.tick()
        assert await ledger(engine, row.id) == [("run", None, 1)]


async def test_an_edit_in_a_pause_leaves_its_slots_on_record(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        row = await make(engine)
        await engine.triggers.pause(row.id)
        await age(engine, 3)
        await engine.triggers.update(row.id, {"schedule_interval": "*/10 * * * *"})
        await engine.triggers.resume(row.id)
        assert await ledger(engine, row.id) == [("skipped", "paused", 1)] * 3


async def test_enabling_runs_the_period_under_way_when_the_trigger_says_so(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        row = await make(engine, schedule_interval="@monthly", settings={"create_initial_pipeline_run": True})
        await engine.passes.tick()
        assert await ledger(engine, row.id) == [("run", None, 1)]
        (run,) = await engine.db.read(runs.page, limit=5)
        assert (run.execution_date.day, run.cause) == (1, Cause.TICK)
        await engine.triggers.update(row.id, {"description": "x", "timezone": "Europe/Berlin"})
        await engine.triggers.pause(row.id)
        await engine.triggers.resume(row.id)
        await engine.passes.tick()
        made = await engine.db.read(runs.page, limit=5)
        assert len({run.execution_date for run in made}) == len(made) <= 2, "Berlin's month is another slot"


async def test_while_everything_is_paused_nothing_is_decided(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        rows = [await make(engine, "t"), await make(engine, "all", settings={"catch_up": "all"})]
        await age(engine, 3)
        pause = await engine.db.write(pausing.pause_all, "upgrade", clock=clock.now)
        assert await engine.db.write(pausing.pause_all, "again", clock=clock.now) == pause
        await engine.passes.tick()
        assert [await ledger(engine, row.id) for row in rows] == [[], []]
        assert await engine.db.write(pausing.resume_all, clock=clock.now) == 2
        assert await engine.db.read(pausing.paused) is None
        await engine.passes.tick()
        assert await ledger(engine, rows[0].id) == [("missed", "catch_up", 1)] * 2 + [("run", None, 1)]
        assert await ledger(engine, rows[1].id) == [("run", None, 1)] * 3


async def test_a_pause_that_comes_in_the_middle_of_a_tick_leaves_the_rest_for_later(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        row = await make(engine, settings={"catch_up": "all"})
        await age(engine, 50)
        await one_round(engine)
        await engine.db.write(pausing.pause_all, clock=clock.now)
        await one_round(engine)  # it had looked before the pause: the transaction knows better
        await engine.passes.tick()
        assert await ledger(engine, row.id) == [("run", None, 1)] * 20


async def test_the_end_of_a_pause_of_everything_may_skip_what_was_due(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        row = await make(engine)
        await age(engine, 2)
        await engine.db.write(pausing.pause_all, clock=clock.now)
        await engine.db.write(pausing.resume_all, "skip", clock=clock.now)
        await engine.passes.tick()
        assert await ledger(engine, row.id) == [("skipped", "paused", 1)] * 2
        shown = await engine.triggers.shown(await look(engine, row.id))
        assert shown.next_execution_date is not None and shown.next_execution_date > clock.now()


async def test_a_resume_of_all_decides_about_what_came_due_while_it_waited(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        row, db = await make(engine), engine.db
        await age(engine, 2)
        engine.db = Late(db)  # type: ignore[assignment]
        paused = await system.pause_all(engine)
        await system.resume_all(engine, ResumeAll(missed="skip"))
        engine.db = db
        assert paused.at == clock.now() - HOUR
        await engine.passes.tick()
        assert await ledger(engine, row.id) == [("skipped", "paused", 1)] * 4


async def test_always_on_waits_longer_after_each_failure(world: World) -> None:
    world.pipeline("etl", {"a": []})

    async def fails(call: Any) -> Any:
        return failed()

    world.executor.plays["a"] = fails
    async with world.serving() as engine:
        row = await make(engine, schedule_interval="@always_on")
        waits = []
        for count in range(1, 5):
            await engine.passes.tick()
            await until(lambda count=count: len(world.executor.calls) == count)  # type: ignore[misc]
            newest = (await engine.db.read(runs.page, limit=1))[0]
            assert await engine.wait(newest.id, 10)
            await engine.db.write(_look_now)
            await engine.passes.tick()
            run = (await engine.db.read(runs.page, limit=1))[0]
            look_at = (await look(engine, row.id)).next_fire_at
            assert run.id == newest.id and run.completed_at is not None and look_at is not None
            waits.append((look_at - run.completed_at).total_seconds())
            await engine.db.write(_a_minute_ago)
        assert waits == [1.0, 2.0, 4.0, 8.0]


def _look_now(tx: Tx) -> None:
    tx.execute(SCHEDULE.update().values(next_fire_at=clock.now()))


def _a_minute_ago(tx: Tx) -> None:
    """The runs that have ended did so a minute ago, and their trigger is looked at now."""
    from app.store.sql import SLOT

    minute = timedelta(minutes=1)
    for row in tx.execute(RUN.select().order_by(RUN.c.id)).all():
        moved = {"created_at": row.created_at - minute, "started_at": row.started_at - minute}
        dated = {"execution_date": row.execution_date - minute, "completed_at": row.completed_at - minute}
        tx.execute(RUN.update().where(RUN.c.id == row.id).values(**moved, **dated))
    for slot in tx.execute(SLOT.select().order_by(SLOT.c.execution_date)).all():
        at = {"execution_date": slot.execution_date - minute}
        tx.execute(SLOT.update().where(SLOT.c.pipeline_run_id == slot.pipeline_run_id).values(**at))
    trigger = tx.execute(SCHEDULE.select()).one()
    enabled = {"last_enabled_at": trigger.last_enabled_at - 2 * minute}
    tx.execute(
        SCHEDULE.update().values(cursor_at=trigger.cursor_at - minute, next_fire_at=clock.now(), **enabled)
    )


async def test_a_landing_trigger_learns_from_its_runs(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        landing = (clock.now() + timedelta(minutes=20)).replace(microsecond=0)
        settings = {"landing_time_enabled": True}
        row = await make(engine, schedule_interval="@every 1d", start_time=landing, settings=settings)
        await engine.passes.tick()
        (run,) = await engine.db.read(runs.page, limit=5)
        assert run.execution_date == landing, "no history: when its period begins"
        assert await engine.wait(run.id, 10)
        shown = await engine.triggers.shown(await look(engine, row.id))
        assert shown.next_execution_date == run.execution_date + timedelta(days=1)
        assert shown.starts_at is not None and shown.starts_at < shown.next_execution_date
        (slot,) = await engine.db.read(slot_ledger.page, row.id, limit=5)
        assert slot.reason == "no completed run yet: starts when its period begins"
        assert run.status in (RunStatus.INITIAL, RunStatus.RUNNING, RunStatus.COMPLETED)


async def test_a_trigger_past_its_end_has_ended(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        end = (clock.now() - timedelta(minutes=61)).isoformat()
        row = await make(engine, settings={"end_time": end, "catch_up": "all"})
        assert (await engine.triggers.shown(row)).ended
        await engine.passes.tick()
        assert await ledger(engine, row.id) == []


async def test_what_has_gone_from_the_files_can_be_pruned_with_its_history_kept(world: World) -> None:
    world.pipeline("etl", {"a": []})
    entry = {"schedule_interval": "@hourly"}
    world.triggers("etl", {"name": "t", **entry}, {"name": "dev only", **entry, "envs": ["dev"]})
    async with world.serving() as engine:
        await engine.passes.sync(force=True)
        mine = await make(engine, "mine")
        (row,) = [r for r in await engine.db.read(schedules.page, limit=9) if r.name == "t"]
        run = await engine.triggers.launch(row.id)
        assert await engine.wait(run.id, 10)
        world.triggers("etl", {"name": "t", **entry, "envs": ["staging"]})
        await engine.passes.sync()
        assert [gone.name for gone in await engine.triggers.gone()] == ["t"]
        assert [gone.name for gone in await engine.triggers.prune()] == ["t"]
        assert await engine.triggers.prune() == []
        assert [r.id for r in await engine.db.read(schedules.page, limit=9)] == [mine.id]
        assert [r.id for r in await engine.db.read(runs.page, schedule_id=[row.id], limit=5)] == [run.id]
        world.triggers("etl", {"name": "t", **entry})
        await engine.passes.sync()
        back = [r for r in await engine.db.read(schedules.page, limit=9) if r.name == "t"]
        assert [r.id > row.id for r in back] == [True]


async def test_a_slot_that_comes_due_as_a_tick_ends_is_not_left_to_the_next_second(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.serving() as engine:
        armed: list[datetime] = []
        monkeypatch.setattr(engine._timers, "at", lambda when, _name, _work: armed.append(when))
        for due in (clock.now() - timedelta(milliseconds=1), clock.now() + timedelta(days=1), None):

            async def ticked(due: datetime | None = due) -> datetime | None:
                return due

            monkeypatch.setattr(engine.passes, "tick", ticked)
            before = clock.now()
            await engine._tick()
        assert len(armed) == 1 and armed[0] < before + timedelta(seconds=1)


async def test_while_all_is_paused_no_tick_calls_for_the_next(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        await make(engine)
        await engine.db.write(pausing.pause_all, clock=clock.now)
        await age(engine, 2)
        assert await engine.passes.tick() is None
