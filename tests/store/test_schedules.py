"""Triggers, slots and limits in the store, on both databases."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from app import clock
from app.models.pipeline import Limits
from app.models.rows import ScheduleRow
from app.models.states import Cause, RunStatus, ScheduleStatus, ScheduleType, SlotOutcome
from app.scheduler.admission import judged, schedule_cap
from app.scheduler.catchup import Fire
from app.scheduler.tick import Decision, Plan, decide
from app.store import ledger, limits, runs, schedules, slots
from app.store.admit import admit
from app.store.db import Tx
from app.store.slots import NewSlot
from tests.store.conftest import AT, Bench


async def trigger(bench: Bench, schedule_id: int = 1, **values: Any) -> ScheduleRow:
    given = {
        "name": f"t{schedule_id}",
        "pipeline_uuid": "etl",
        "schedule_type": ScheduleType.TIME,
        "schedule_interval": "@hourly",
        "timezone": "UTC",
        "status": ScheduleStatus.ACTIVE,
        "variables": {"env": "x"},
        "settings": {},
        "tags": ["a"],
        "managed_by": "file",
        "digest": "d",
        "revision": 1,
        "cursor_at": AT - timedelta(hours=1),
        "next_fire_at": AT,
        **values,
    }
    await bench.db.write(schedules.save, schedule_id, given, new=True, now=AT)
    row = await bench.db.read(schedules.get, schedule_id)
    assert row is not None
    return row


def fire(row: ScheduleRow, run: Any) -> Decision:
    plan = Plan(cursor_at=AT, next_fire_at=AT + timedelta(hours=1), fires=(Fire(AT),))
    return Decision(schedule=row, plan=plan, runs={AT: run})


async def slot_run(bench: Bench, row: ScheduleRow) -> Any:
    return await bench.new(cause="tick", pipeline_schedule_id=row.id)


async def test_a_slot_gets_one_run_however_many_nodes_tick(bench: Bench) -> None:
    row = await trigger(bench)
    decisions = [[fire(row, await slot_run(bench, row))] for _ in range(6)]
    made = await asyncio.gather(
        *(bench.db.write(decide, d, node_id=bench.me, now=clock.now()) for d in decisions)
    )
    assert sum(len(m) for m in made) == 1
    (slot,) = await bench.db.read(ledger.page, row.id, limit=10)
    assert (slot.outcome, slot.execution_date) == (SlotOutcome.RUN, AT)
    assert len(await bench.db.read(runs.page, limit=10)) == 1


async def test_a_tick_that_read_before_an_edit_decides_nothing(bench: Bench) -> None:
    row = await trigger(bench)
    values = {"revision": 2, "schedule_interval": "@daily"}
    await bench.db.write(schedules.save, row.id, values, new=False, now=clock.now())
    decision = fire(row, await slot_run(bench, row))
    assert await bench.db.write(decide, [decision], node_id=bench.me, now=clock.now()) == {}
    assert await bench.db.read(ledger.page, row.id, limit=10) == []


async def test_a_slow_node_cannot_fire_an_old_slot_again(bench: Bench) -> None:
    row = await trigger(bench)
    await bench.db.write(decide, [fire(row, await slot_run(bench, row))], node_id=bench.me, now=clock.now())
    late = await bench.db.write(
        decide, [fire(row, await slot_run(bench, row))], node_id="late", now=clock.now()
    )
    assert late == {}


@pytest.mark.parametrize(
    ("settings", "fates"),
    [
        ({"skip_if_previous_running": True}, [("run", None), ("skipped", "overlap")]),
        ({"pipeline_run_limit": 1}, [("run", None), ("run", "pipeline_run_limit")]),
        ({"pipeline_run_limit": 1, "on_pipeline_run_limit_reached": "wait"}, [("run", None), ("run", None)]),
    ],
)
async def test_limits_decide_the_fate_of_a_slot(bench: Bench, settings: Any, fates: Any) -> None:
    row = await trigger(bench, settings=settings)
    by = judged("etl", row.id, settings, Limits(), Cause.TICK)
    cap = schedule_cap(settings)
    await bench.db.write(limits.set_limit, f"schedule:{row.id}", cap, now=clock.now())
    first = fire(row, replace(await slot_run(bench, row), judged=by))
    await bench.db.write(decide, [first], node_id=bench.me, now=clock.now())
    row = replace(row, cursor_at=AT)
    later = AT + timedelta(hours=1)
    run = await bench.new(cause="tick", pipeline_schedule_id=row.id, execution_date=later)
    second = Decision(
        schedule=row, plan=Plan(later, later, (Fire(later),)), runs={later: replace(run, judged=by)}
    )
    await bench.db.write(decide, [second], node_id=bench.me, now=clock.now())
    found = await bench.db.read(ledger.page, row.id, limit=10)
    assert [(s.outcome, s.reason) for s in reversed(found)] == fates


async def test_a_gap_is_one_row_with_a_count(bench: Bench) -> None:
    row = await trigger(bench)
    gap = NewSlot(
        execution_date=AT - timedelta(hours=9),
        outcome=SlotOutcome.MISSED,
        reason="catch_up",
        until=AT - timedelta(hours=1),
        count=9,
    )
    await bench.db.write(slots.write_slots, row, [gap], node_id=bench.me, now=clock.now())
    (slot,) = await bench.db.read(ledger.page, row.id, limit=10)
    assert (slot.count, slot.until) == (9, AT - timedelta(hours=1))


async def test_a_slot_cannot_be_decided_twice(bench: Bench) -> None:
    row = await trigger(bench)
    missed = NewSlot(execution_date=AT - timedelta(hours=1), outcome=SlotOutcome.MISSED)
    await bench.db.write(slots.write_slots, row, [missed], node_id=bench.me, now=clock.now())
    with pytest.raises(IntegrityError):
        await bench.db.write(slots.write_slots, row, [missed], node_id=bench.me, now=clock.now())


async def test_only_active_due_triggers_are_due(bench: Bench) -> None:
    await trigger(bench, 1)
    await trigger(bench, 2, status=ScheduleStatus.INACTIVE)
    await trigger(bench, 3, next_fire_at=AT + timedelta(hours=2))
    assert [row.id for row in await bench.db.read(slots.due, now=AT, limit=10)] == [1]
    assert await bench.db.read(slots.next_due) == AT


async def test_names_are_unique_within_a_pipeline(bench: Bench) -> None:
    await trigger(bench, 1, name="same")
    with pytest.raises(IntegrityError):
        await trigger(bench, 2, name="same")
    await trigger(bench, 3, name="same", pipeline_uuid="other")


async def test_a_quarantined_trigger_is_looked_at_again_a_minute_later(bench: Bench) -> None:
    row = await trigger(bench)
    await bench.db.write(slots.quarantine, [(row, "why")], now=AT)
    assert await bench.db.read(slots.next_due) is None
    assert await bench.db.read(slots.due, now=AT + timedelta(seconds=59), limit=10) == []
    assert len(await bench.db.read(slots.due, now=AT + timedelta(seconds=60), limit=10)) == 1
    shown = await bench.db.read(schedules.get, row.id)
    assert shown is not None
    assert shown.error == "why"


async def test_every_change_of_a_limit_is_kept(bench: Bench) -> None:
    for cap in (2, 2, 3, None):
        await bench.db.write(limits.set_limit, "global", cap, now=clock.now())

    def history(tx: Tx) -> list[int | None]:
        from app.store.sql import HISTORY

        return [row.cap for row in tx.execute(HISTORY.select().order_by(HISTORY.c.seq))]

    assert await bench.db.read(history) == [2, 3, None]


async def test_pages_are_in_order_and_filtered(bench: Bench) -> None:
    for schedule_id in (1, 2, 3):
        await trigger(bench, schedule_id, pipeline_uuid="etl" if schedule_id < 3 else "other")
    assert [r.id for r in await bench.db.read(schedules.page, limit=2, after_id=1)] == [2, 3]
    assert [r.id for r in await bench.db.read(schedules.page, limit=9, pipeline_uuid=["other"])] == [3]


async def test_of_runs_that_race_for_a_limited_trigger_the_surplus_is_over_at_birth(bench: Bench) -> None:
    row = await trigger(bench)
    await bench.db.write(limits.set_limit, f"schedule:{row.id}", 2, now=clock.now())
    by = judged("etl", row.id, {"pipeline_run_limit": 2}, Limits(), Cause.API)
    asked = [replace(await bench.new(pipeline_schedule_id=row.id), judged=by) for _ in range(8)]
    made = await asyncio.gather(*(bench.launch(new) for new in asked))
    ends = [(one.run.status, one.run.status_reason) for (one,) in made if one.run.completed_at]
    assert ends == [(RunStatus.CANCELLED, "pipeline_run_limit")] * 6
    left = await bench.db.write(admit, bench.claimer(), now=clock.now())
    assert len(left) == 2, "the others wait for the next admission"
