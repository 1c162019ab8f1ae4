"""Explanations, the look ahead and a sync that was asked for, from real rows on both databases."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from app import clock
from app.errors import RunNotFound, ScheduleNotFound
from app.models.states import RunStatus
from app.scheduler import ahead, applying, explaining
from app.scheduler.engine import Engine
from app.scheduler.triggers import TriggerDraft
from app.store import ledger
from app.store.db import Tx
from app.store.sql import REVISION, SCHEDULE
from tests.engine.conftest import World, failed
from tests.engine.triggers import age, make


async def reasons(engine: Engine, schedule_id: int, at: datetime, paused: bool = False) -> list[str]:
    answer = await explaining.schedule_at(
        engine.db, engine.catalogue.project, schedule_id, at, now=clock.now(), paused=paused
    )
    return [reason.code for reason in answer.reasons]


async def test_what_the_tick_decided_is_what_is_told(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        row = await make(engine, schedule_interval="@hourly", settings={"catch_up": "latest"})
        await age(engine, hours=3, minutes=1)
        hour = clock.now().replace(minute=0, second=0, microsecond=0)
        assert await reasons(engine, row.id, hour) == ["undecided"]
        assert await reasons(engine, row.id, hour, paused=True) == ["undecided", "scheduler_paused"]
        await engine.passes.tick()
        (newest,) = await engine.db.read(ledger.page, row.id, limit=1, outcome=["run"])
        assert newest.pipeline_run_id is not None and await engine.wait(newest.pipeline_run_id, 20)
        told = await reasons(engine, row.id, newest.execution_date)
        assert told[0] == "run" and set(told) <= {"run", "decided_late"}
        before = newest.execution_date - timedelta(hours=1)
        assert await reasons(engine, row.id, before) == ["catch_up", "decided_late"]
        assert (await reasons(engine, row.id, hour + timedelta(minutes=7)))[0] == "not_due"
        assert await reasons(engine, row.id, hour + timedelta(hours=2)) == ["not_yet"]
        later = hour + timedelta(hours=2)
        await engine.triggers.pause(row.id)
        assert await reasons(engine, row.id, later) == ["inactive"]
        assert (await reasons(engine, row.id, newest.execution_date))[0] == "run", "the past stays"
        await engine.triggers.delete(row.id)
        assert (await reasons(engine, row.id, later))[0] == "deleted"
        with pytest.raises(ScheduleNotFound):
            await reasons(engine, 987_654, later)


async def test_a_zone_that_the_project_gets_later_moves_no_trigger(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        old = await make(engine, "old", schedule_interval="0 9 * * *")
        (world.folder / "metadata.yaml").write_text("name: project\ntimezone: Asia/Tokyo\n")
        assert await engine.passes.sync()
        new = await make(engine, "new", schedule_interval="0 9 * * *")
        for row, zone in ((old, "UTC"), (new, "Asia/Tokyo")):
            row = await engine.triggers.update(row.id, {"description": "the same slots"})
            assert row.next_fire_at is not None and row.next_fire_at.astimezone(ZoneInfo(zone)).hour == 9
            project, now = engine.catalogue.project, clock.now()
            (first,) = await ahead.upcoming(engine.db, project, now=now, count=1, ids=(row.id,))
            assert (first.execution_date, first.execution_date.tzinfo) == (row.next_fire_at, ZoneInfo(zone))
            assert await reasons(engine, row.id, row.next_fire_at) == ["not_yet"]
            run = await engine.triggers.launch(row.id)
            assert run.options["trigger"]["timezone"] == zone
        moved = await engine.triggers.update(old.id, {"timezone": None})
        assert moved.timezone == "Asia/Tokyo", "null asks for the project's"


async def test_equal_steps_are_told_in_the_phase_they_had(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        row = await make(engine, schedule_interval="@every 1h")
        began = clock.now().replace(microsecond=0) - timedelta(hours=5, minutes=20)

        def age(tx: Tx) -> None:
            then = {"last_enabled_at": began, "cursor_at": began}
            tx.execute(SCHEDULE.update().values(next_fire_at=began, **then))
            tx.execute(REVISION.update().values(at=began, **then))

        await engine.db.write(age)
        await engine.passes.tick()
        await engine.triggers.pause(row.id)
        await engine.triggers.resume(row.id)
        at = began + timedelta(hours=2)
        answer = await explaining.schedule_at(
            engine.db, engine.catalogue.project, row.id, at, now=clock.now(), paused=False
        )
        assert answer.previous is not None and answer.next is not None
        hour = timedelta(hours=1)
        assert (answer.previous.execution_date, answer.next.execution_date) == (at - hour, at + hour)
        assert answer.previous.outcome == answer.next.outcome == "missed"


async def test_a_row_that_somebody_broke_breaks_no_answer(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        row = await make(engine)
        tomorrow = clock.now() + timedelta(days=1)
        statement = SCHEDULE.update().where(SCHEDULE.c.id == row.id)
        sound = {"settings": {}, "timezone": None}
        for broken in (
            {"settings": {"end_time": "soon"}},
            {"settings": {"blackouts": 7}},
            {"timezone": "Mars"},
        ):
            values = statement.values({**sound, **broken})
            await engine.db.write(Tx.execute, values)
            project = engine.catalogue.project
            assert await ahead.upcoming(engine.db, project, now=clock.now(), count=3) == []
            assert await reasons(engine, row.id, tomorrow) == ["quarantined"]
        await engine.db.write(Tx.execute, statement.values(sound))


async def test_runs_tell_why(world: World) -> None:
    async def fails(_call: object) -> object:
        return failed("no luck")

    world.pipeline("etl", {"a": [], "b": ["a"]})
    world.executor.plays["a"] = fails  # type: ignore[assignment]
    async with world.serving() as engine:
        run, _blocks = await world.run(engine, "etl")
        answer = await explaining.run(engine.db, run.id, now=clock.now())
        assert answer.status is RunStatus.FAILED
        assert answer.summary == "Block 'a' failed: ValueError: no luck (custom/x.py:3)."
        assert [reason.code for reason in answer.reasons][1:] in (["never_started"], [])
        limited = await make(engine, settings={"pipeline_run_limit": 0})
        surplus = await engine.triggers.launch(limited.id)
        assert await engine.wait(surplus.id, 20)
        answer = await explaining.run(engine.db, surplus.id, now=clock.now())
        assert (answer.status, answer.reasons[0].code) == (RunStatus.CANCELLED, "pipeline_run_limit")
        with pytest.raises(RunNotFound):
            await explaining.run(engine.db, 987_654, now=clock.now())


async def test_what_is_to_come_is_merged_in_the_order_of_time(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        project, now = engine.catalogue.project, clock.now()
        hourly = await make(engine, "hourly")
        landing = {"landing_time_enabled": True}
        daily = await make(engine, "daily", schedule_interval="0 0 * * *", settings=landing)
        await make(engine, "sleeps", status="inactive")
        found = await ahead.upcoming(engine.db, project, now=now, count=30)
        dates = [slot.execution_date for slot in found]
        assert len(found) == 30 and dates == sorted(dates)
        assert {slot.pipeline_schedule_id for slot in found} == {hourly.id, daily.id}
        one = await ahead.upcoming(engine.db, project, now=now, count=2, ids=(daily.id,))
        assert [slot.name for slot in one] == ["daily", "daily"]
        entry = engine.triggers.check(
            TriggerDraft(pipeline_uuid="", name="x", schedule_interval="0 0 * * *", settings=landing)
        )
        same = ahead.of_definition(entry, project, now=now, after=now, count=2)
        assert [slot.execution_date for slot in same.items] == [slot.execution_date for slot in one]


async def test_a_sync_that_was_asked_for_says_what_it_did(world: World) -> None:
    world.pipeline("etl", {"a": []})
    world.triggers(
        "etl", {"name": "one", "schedule_interval": "@daily"}, {"name": "two", "schedule_interval": "x"}
    )

    async def apply(engine: Engine, *, prune: bool = False, dry_run: bool = False) -> applying.Applied:
        return await applying.apply(
            engine.db,
            engine.settings,
            engine.triggers,
            lambda: engine.passes.sync(force=True),
            prune=prune,
            dry_run=dry_run,
        )

    async with world.serving() as engine:
        planned = await apply(engine, dry_run=True)
        assert [(new.id, new.name) for new in planned.created] == [(None, "one"), (None, "two")]
        done = await apply(engine)
        assert [new.name for new in done.created if new.id] == ["one", "two"]
        assert done.created[0].error is None and "x" in (done.created[1].error or "")
        again = await apply(engine)
        assert again == applying.Applied(dry_run=False, quarantined=done.created[1:]), "faults stay told"
        world.triggers("etl", {"name": "two", "schedule_interval": "@hourly"})
        done = await apply(engine)
        assert [[one.name for one in part] for part in (done.changed, done.deactivated)] == [["two"], ["one"]]
        done = await apply(engine, prune=True)
        assert [one.name for one in done.deleted] == ["one"] and done.deactivated == ()
        assert await apply(engine, prune=True) == applying.Applied(dry_run=False)
