"""Rows that somebody wrote by hand into the table: they hurt no other, are shown, and recover once mended."""

import random
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from app import clock
from app.scheduler.engine import Engine
from app.store import schedules
from app.store.db import Tx
from app.store.sql import SCHEDULE, SLOT
from tests.engine.conftest import World
from tests.engine.malformed import forget, malformed, written
from tests.engine.test_missed import age, ledger, look, make


async def break_it(engine: Engine, schedule_id: int, **values: Any) -> None:
    await engine.db.write(
        lambda tx: tx.execute(SCHEDULE.update().where(SCHEDULE.c.id == schedule_id).values(**values))
    )


@pytest.mark.parametrize(
    ("broken", "mended", "words"),
    [
        ({"schedule_interval": "61 * * * *"}, {"schedule_interval": "@hourly"}, "minute '61'"),
        ({"schedule_interval": None}, {"schedule_interval": "@hourly"}, ""),
        ({"timezone": "Mars/Olympus"}, {"timezone": None}, "unknown time zone"),
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


async def test_two_thousand_malformed_definitions_cost_a_hundred_healthy_ones_nothing(world: World) -> None:
    world.pipeline("etl", {"a": []})
    dice = random.Random(2026)
    async with world.serving() as engine:
        then = clock.now() - timedelta(hours=3)
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
