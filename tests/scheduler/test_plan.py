"""What a trigger does when it is looked at: pure, no database."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.models.rows import ScheduleRow
from app.models.states import ScheduleStatus, ScheduleType, SlotOutcome
from app.scheduler import timetable
from app.scheduler.catchup import COUNT_LIMIT, ROWS_EACH
from app.scheduler.tick import Plan, Recent, first_look, plan

NOW = datetime(2026, 11, 25, 12, 30, tzinfo=UTC)


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-11-{text}+00:00")


def row(**values: Any) -> ScheduleRow:
    given = {
        "id": 1,
        "name": "t",
        "pipeline_uuid": "p",
        "schedule_type": ScheduleType.TIME,
        "status": ScheduleStatus.ACTIVE,
        "created_at": at("01T00:00"),
        "updated_at": at("01T00:00"),
    }
    return ScheduleRow(**{**given, **values})


def fired(planned: Plan) -> list[datetime]:
    return [fire.date for fire in planned.fires]


def hourly() -> timetable.Timetable:
    return timetable.parse("@hourly")


def test_a_new_trigger_waits_for_its_next_slot() -> None:
    first = first_look(row(), hourly(), now=NOW)
    assert (fired(first), first.cursor_at, first.next_fire_at) == ([], NOW, at("25T13:00"))


def test_an_edit_never_fires_the_past_and_never_moves_the_cursor_back() -> None:
    ahead = row(cursor_at=at("25T14:00"))
    assert first_look(ahead, hourly(), now=NOW).cursor_at == at("25T14:00")
    behind = row(cursor_at=at("20T14:00"))
    assert first_look(behind, hourly(), now=NOW).next_fire_at == at("25T13:00")


def test_a_slot_at_start_time_is_the_first() -> None:
    first = first_look(row(start_time=at("27T06:00")), hourly(), now=NOW)
    assert first.next_fire_at == at("27T06:00")
    between = first_look(row(start_time=at("27T06:30")), hourly(), now=NOW)
    assert between.next_fire_at == at("27T07:00")


def test_a_due_slot_fires_and_the_next_is_known() -> None:
    planned = plan(row(cursor_at=at("25T11:00")), hourly(), now=NOW)
    assert (fired(planned), planned.dropped) == ([at("25T12:00")], ())
    assert (planned.cursor_at, planned.next_fire_at) == (at("25T12:00"), at("25T13:00"))


def test_nothing_due_moves_nothing() -> None:
    planned = plan(row(cursor_at=at("25T12:00")), hourly(), now=NOW)
    assert (fired(planned), planned.cursor_at, planned.next_fire_at) == ([], at("25T12:00"), at("25T13:00"))


def test_after_an_outage_the_latest_slot_runs_and_the_others_are_on_record() -> None:
    planned = plan(row(cursor_at=at("25T08:00")), hourly(), now=NOW)
    assert fired(planned) == [at("25T12:00")]
    assert [slot.execution_date for slot in planned.dropped] == [
        at("25T09:00"),
        at("25T10:00"),
        at("25T11:00"),
    ]
    assert {(slot.outcome, slot.reason) for slot in planned.dropped} == {(SlotOutcome.MISSED, "catch_up")}


def test_a_long_outage_is_one_row_with_a_count() -> None:
    planned = plan(row(cursor_at=at("20T12:00")), hourly(), now=NOW)
    (gap,) = planned.dropped
    assert (gap.execution_date, gap.until, gap.count) == (at("20T13:00"), at("25T11:00"), 5 * 24 - 1)
    assert gap.count > ROWS_EACH


def test_a_year_of_minutes_is_counted_up_to_the_limit() -> None:
    minutes = timetable.parse("* * * * *")
    (gap,) = plan(row(cursor_at=NOW - timedelta(days=365)), minutes, now=NOW).dropped
    assert gap.count == COUNT_LIMIT
    assert gap.until == NOW - timedelta(minutes=1)


def test_once_fires_once_at_its_start_time() -> None:
    once = timetable.parse("@once")
    trigger = row(start_time=at("25T12:00"), last_enabled_at=at("24T00:00"))
    planned = plan(trigger, once, now=NOW)
    assert (fired(planned), planned.next_fire_at) == ([at("25T12:00")], None)
    assert plan(row(cursor_at=at("25T12:00"), start_time=at("25T12:00")), once, now=NOW).fires == ()


def test_once_waits_for_a_start_time_in_the_future() -> None:
    first = first_look(row(start_time=at("27T06:30")), timetable.parse("@once"), now=NOW)
    assert (first.next_fire_at, first.cursor_at) == (at("27T06:30"), None)


@pytest.mark.parametrize("live", [True, False])
def test_always_on_follows_the_end_of_the_run_before(live: bool) -> None:
    always = timetable.parse("@always_on")
    ended = at("25T12:10")
    planned = plan(row(cursor_at=at("25T12:00")), always, now=NOW, recent=Recent(live, ended))
    assert fired(planned) == ([] if live else [ended])
    assert planned.next_fire_at == NOW + timedelta(seconds=1)


def test_always_on_begins_when_it_was_enabled() -> None:
    planned = plan(row(last_enabled_at=at("25T12:00")), timetable.parse("@always_on"), now=NOW)
    assert fired(planned) == [at("25T12:00")]


def test_always_on_that_was_enabled_after_its_last_run_begins_with_that_moment() -> None:
    # It had slots of another interval after that run's end: counted from there it would never begin.
    trigger = row(cursor_at=at("25T12:20"), last_enabled_at=at("25T12:25"))
    planned = plan(trigger, timetable.parse("@always_on"), now=NOW, recent=Recent(last_end=at("25T12:10")))
    assert fired(planned) == [at("25T12:25")]


def test_once_never_fires_a_date_that_lies_before_what_was_decided() -> None:
    once = timetable.parse("@once")
    past = plan(row(cursor_at=at("25T12:00"), start_time=at("25T11:00")), once, now=NOW)
    assert (fired(past), past.cursor_at, past.next_fire_at) == ([], at("25T12:00"), None)
    later = plan(row(cursor_at=at("25T11:00"), last_enabled_at=at("25T12:00")), once, now=NOW)
    assert (fired(later), later.cursor_at) == ([at("25T12:00")], at("25T12:00"))
