"""Rows that somebody wrote by hand into the table: they hurt no other, are shown, and recover once mended."""

import random
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from app import clock
from app.scheduler.engine import Engine
from app.store import ledger as slot_ledger
from app.store import limits, schedules, slots
from app.store.db import Tx
from app.store.sql import SCHEDULE, SLOT
from tests.engine.conftest import World
from tests.engine.malformed import forget, malformed, written
from tests.engine.triggers import Late, age, hold, ledger, look, make

HOUR = timedelta(hours=1)
ZONE = "Mars/Olympus"


async def break_it(engine: Engine, *schedule_ids: int, **values: Any) -> None:
    these = SCHEDULE.update().where(SCHEDULE.c.id.in_(schedule_ids))
    await engine.db.write(lambda tx: tx.execute(these.values(**values)))


async def set_aside(engine: Engine, schedule_id: int) -> None:
    """Give a trigger a zone that there is none of; the slot of an hour ago is due, and a tick meets it."""
    await break_it(engine, schedule_id, timezone=ZONE)
    await age(engine, 1)
    await engine.passes.tick()
    assert (await look(engine, schedule_id)).error is not None


@pytest.mark.parametrize(
    ("broken", "mended", "words"),
    [
        ({"schedule_interval": "61 * * * *"}, {"schedule_interval": "@hourly"}, "minute '61'"),
        ({"schedule_interval": None}, {"schedule_interval": "@hourly"}, "'' has 0 fields"),
        ({"timezone": ZONE}, {"timezone": None}, "unknown time zone"),
        ({"settings": {"catchup": True}}, {"settings": {}}, "unknown setting 'catchup'"),
        ({"settings": {"catch_up": ["all"]}}, {"settings": {}}, "settings.catch_up must be a text"),
        ({"settings": [1]}, {"settings": {}}, "cannot be read: settings"),
        ({"tags": {"a": 1}}, {"tags": []}, "cannot be read: tags"),
        ({"pipeline_uuid": "deleted"}, {"pipeline_uuid": "etl"}, "there is no pipeline 'deleted'"),
    ],
)
async def test_a_row_broken_by_hand_is_set_aside_shown_and_recovers_by_itself(
    world: World, broken: dict[str, Any], mended: dict[str, Any], words: str
) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        bad, good = await make(engine, "bad"), await make(engine, "good")
        await age(engine, 2)
        await break_it(engine, bad.id, **broken)
        shown = {
            row.name: await engine.triggers.shown(row)
            for row in await engine.db.read(schedules.page, limit=9)
        }
        assert words in (shown["bad"].error or "") and shown["good"].error is None, (
            "before any tick has met it"
        )
        await engine.passes.tick()
        assert words in ((await look(engine, bad.id)).error or "")
        assert await ledger(engine, good.id) == [("missed", "catch_up", 1), ("run", None, 1)]
        await engine.passes.tick()
        assert (await look(engine, bad.id)).error is not None, "nothing has changed"
        await break_it(engine, bad.id, **mended)
        await engine.passes.tick()
        after = await look(engine, bad.id)
        assert after.error is None and after.next_fire_at is not None and after.next_fire_at > clock.now()
        assert await ledger(engine, bad.id) == [("missed", "error", 1)] * 2


async def test_a_deleted_pipeline_that_comes_back_sets_its_triggers_free(world: World) -> None:
    world.pipeline("etl", {"a": []})
    world.pipeline("gone", {"b": []})
    async with world.serving() as engine:
        row = await make(engine)
        await break_it(engine, row.id, pipeline_uuid="later")
        await age(engine, 1)
        await engine.passes.tick()
        assert (await look(engine, row.id)).error is not None
        world.pipeline("later", {"a": []})
        assert await engine.passes.sync()
        await engine.passes.tick()
        assert (await look(engine, row.id)).error is None


async def test_a_trigger_written_into_the_table_is_found(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        await engine.db.write(lambda tx: tx.execute(SCHEDULE.insert(), [written(9001), written(9002, "x y")]))
        await engine.passes.tick()
        good, bad = await look(engine, 9001), await look(engine, 9002)
        assert good.next_fire_at is not None and good.error is None
        assert bad.error is not None


async def test_a_trigger_that_is_taken_up_again_keeps_the_limit_of_its_pipeline(world: World) -> None:
    world.pipeline("etl", {"a": []}, concurrency_config={"pipeline_run_limit": 1})
    async with world.serving() as engine:
        row = await make(engine)
        await set_aside(engine, row.id)
        await break_it(engine, row.id, timezone=None)
        await engine.passes.tick()
        assert (await look(engine, row.id)).error is None
        assert await engine.db.read(limits.limits, "schedule:") == {f"schedule:{row.id}": 1}


async def test_what_another_node_has_taken_up_is_taken_up_once(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        row = await make(engine)
        await set_aside(engine, row.id)
        ticker = engine.passes._ticker
        as_the_other_remembers_it = dict(ticker._aside)
        await break_it(engine, row.id, timezone=None)
        await engine.passes.tick()
        mended = await look(engine, row.id)
        hold(HOUR)
        ticker._aside.update(as_the_other_remembers_it)
        await engine.passes.tick()
        assert (await look(engine, row.id)).revision == mended.revision
        assert await ledger(engine, row.id) == [("missed", "error", 1), ("run", None, 1)]


async def test_what_two_nodes_find_mended_at_once_is_taken_up_once(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        row = await make(engine)
        ticker = engine.passes._ticker
        ticker._mended = [row]
        await ticker._write_aside()
        taken_up = await look(engine, row.id)
        ticker._mended = [row]
        await ticker._write_aside()
        assert await look(engine, row.id) == taken_up and taken_up.revision == row.revision + 1


@pytest.mark.parametrize("looked_at_meanwhile", [True, False])
async def test_a_resume_of_a_trigger_that_was_set_aside_is_kept(
    world: World, looked_at_meanwhile: bool
) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        row = await make(engine)
        await set_aside(engine, row.id)
        await engine.triggers.pause(row.id)
        await break_it(engine, row.id, timezone=None)
        if looked_at_meanwhile:
            await engine.passes.tick()
        hold(3 * HOUR)
        assert (await engine.triggers.missed(row.id)).choices["all"].runs == 3
        await engine.triggers.resume(row.id, "all")
        await engine.passes.tick()
        assert await ledger(engine, row.id) == [("skipped", "paused", 1)] + [("run", None, 1)] * 3


async def test_a_trigger_that_is_still_broken_when_it_is_resumed_recovers_too(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        row = await make(engine)
        await set_aside(engine, row.id)
        await engine.triggers.pause(row.id)
        await engine.passes.tick()
        assert (await engine.triggers.resume(row.id)).error is not None
        await engine.passes.tick()
        await break_it(engine, row.id, timezone=None)
        await engine.passes.tick()
        assert (await look(engine, row.id)).error is None


async def test_what_was_set_aside_and_is_gone_is_left_alone(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        deleted, paused = await make(engine, "deleted"), await make(engine, "paused")
        for row in (deleted, paused):
            await break_it(engine, row.id, timezone=ZONE)
        await age(engine, 1)
        await engine.passes.tick()
        await break_it(engine, deleted.id, timezone=None)
        await break_it(engine, paused.id, timezone=None)
        await engine.triggers.delete(deleted.id)
        await engine.triggers.pause(paused.id)
        caplog.clear()
        await engine.passes.tick()
        assert [record for record in caplog.records if record.name.startswith("app")] == []
        assert engine.passes._ticker._aside == {}
        assert (await look(engine, paused.id)).next_fire_at is None


@pytest.mark.parametrize("interval", ["@once", "@always_on"])
async def test_a_trigger_that_had_ended_before_its_first_slot_is_looked_at_once(
    world: World, interval: str
) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        ended = {"end_time": (hold() - HOUR).isoformat()}
        row = await make(engine, schedule_interval=interval, settings=ended)
        await engine.passes.tick()
        before = await look(engine, row.id)
        hold(slots.LOOK_AGAIN)
        await engine.passes.tick()
        assert await look(engine, row.id) == before and (await engine.triggers.shown(before)).ended
        await engine.triggers.update(row.id, {"settings": {}})
        await engine.passes.tick()
        assert await ledger(engine, row.id) == [("run", None, 1)]


async def test_many_that_are_taken_up_at_once_hold_up_nothing(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        bad = [await make(engine, f"bad {n}") for n in range(5)]
        good = await make(engine, "good")
        await break_it(engine, *(row.id for row in bad), pipeline_uuid="later")
        await age(engine, 1)
        await engine.passes.tick()
        world.pipeline("later", {"a": []})
        assert await engine.passes.sync()
        await break_it(engine, good.id, cursor_at=clock.now() - HOUR, next_fire_at=clock.now())
        await engine.db.write(lambda tx: tx.execute(SLOT.delete()))
        clock.use(None)
        await engine.passes.tick()
        taken_up = {(row.error, row.updated_at) for row in [await look(engine, row.id) for row in bad]}
        ((error, at),) = taken_up  # one stamp: one transaction
        (slot,) = await engine.db.read(slot_ledger.page, good.id, limit=9)
        assert error is None and slot.decided_at < at


async def test_one_that_cannot_be_taken_up_hurts_no_other(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        rows = [await make(engine, f"t{n}") for n in range(4)]
        await break_it(engine, *(row.id for row in rows), timezone=ZONE)
        await break_it(engine, rows[2].id, revision=0)  # its next revision is on record already
        await age(engine, 1)
        await engine.passes.tick()
        await break_it(engine, *(row.id for row in rows), timezone=None)
        await engine.passes.tick()
        errors = [(await look(engine, row.id)).error for row in rows]
        assert errors == [None, None, "it could not be taken up again: IntegrityError", None]
        await break_it(engine, rows[2].id, revision=1)
        await engine.passes.tick()
        assert (await look(engine, rows[2].id)).error is None


async def test_what_came_due_while_a_taking_up_waited_is_missed_with_the_rest(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        row = await make(engine)
        await set_aside(engine, row.id)
        await break_it(engine, row.id, timezone=None)
        ticker = engine.passes._ticker
        ticker._db = Late(ticker._db)  # type: ignore[assignment]
        await engine.passes.tick()
        assert await ledger(engine, row.id) == [("missed", "error", 1)] * 2


async def test_two_thousand_malformed_definitions_cost_a_hundred_healthy_ones_nothing(world: World) -> None:
    world.pipeline("etl", {"a": []})
    dice = random.Random(2026)
    async with world.serving() as engine:
        then = hold() - timedelta(hours=3)
        healthy = [written(n, cursor_at=then, next_fire_at=then) for n in range(5001, 5101)]
        await engine.db.write(lambda tx: tx.execute(SCHEDULE.insert(), healthy))
        await engine.db.write(
            lambda tx: tx.execute(SCHEDULE.insert(), [malformed(dice, n) for n in range(10_000, 12_000)])
        )
        if engine.db.dialect == "sqlite":  # what no JSON column would take, and no calendar holds
            await engine.db.write(_garbage)
        await engine.passes.tick()
        for schedule_id in range(5001, 5101):
            assert await ledger(engine, schedule_id) == [("missed", "catch_up", 1)] * 2 + [("run", None, 1)]
        shown = await engine.db.read(schedules.page, limit=5000)
        bad = [await engine.triggers.shown(row) for row in shown if row.id >= 10_000]
        assert len(bad) == 2000 and all(row.error for row in bad)
        assert not await engine.db.read(lambda tx: tx.execute(SLOT.select().where(_of_bad())).first())
        await engine.db.write(forget)


def _of_bad() -> Any:
    return SLOT.c.pipeline_schedule_id >= 10_000


def _garbage(tx: Tx) -> None:
    tx.execute(text("UPDATE pipeline_schedule SET settings = '{oops' WHERE id BETWEEN 10000 AND 10200"))
    tx.execute(text("UPDATE pipeline_schedule SET variables = '' WHERE id BETWEEN 10201 AND 10300"))
    tx.execute(
        text("UPDATE pipeline_schedule SET start_time = 9223372036854775807 WHERE id BETWEEN 10301 AND 10400")
    )


async def test_a_fault_that_no_database_takes_hurts_no_other(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        rows = [written(5001), written(5002)]
        await engine.db.write(lambda tx: tx.execute(SCHEDULE.insert(), rows))
        found = await engine.db.read(schedules.page, limit=10)
        tick = engine.passes._ticker
        tick._set_aside(found[0], "a fault with \0 in it")
        tick._set_aside(found[1], "a plain fault")
        await tick._write_faults()
        assert all(row.error for row in await engine.db.read(schedules.page, limit=10))
        await engine.db.write(forget)
