"""Which of several due slots run, and what is said of the others: pure."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidInput
from app.models.rows import ScheduleRow
from app.models.states import ScheduleStatus, ScheduleType, SlotOutcome
from app.scheduler import catchup
from app.scheduler.catchup import BATCH, CATCH_UP_LIMIT
from app.scheduler.landing import Expected
from app.scheduler.tables_of import table_of
from app.scheduler.tick import Plan, Recent, first_look, plan
from app.scheduler.timetable import Timetable

NOW = datetime(2026, 11, 25, 12, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-11-{text}+00:00")


def row(interval: str = "@hourly", **values: Any) -> ScheduleRow:
    given = {
        "id": 1,
        "name": "t",
        "pipeline_uuid": "p",
        "schedule_type": ScheduleType.TIME,
        "status": ScheduleStatus.ACTIVE,
        "created_at": at("01T00:00"),
        "updated_at": at("01T00:00"),
        "schedule_interval": interval,
    }
    return ScheduleRow(**{**given, **values})


def planned(schedule: ScheduleRow, now: datetime = NOW, recent: Recent | None = None) -> Plan:
    return plan(schedule, table_of(schedule, week_start="sunday"), now=now, recent=recent)


def hours(found: Plan) -> list[int]:
    return [fire.date.hour for fire in found.fires]


def dropped(found: Plan) -> list[tuple[int, str, str | None, int]]:
    return [(slot.execution_date.hour, slot.outcome.value, slot.reason, slot.count) for slot in found.dropped]


def test_all_runs_every_missed_slot_oldest_first() -> None:
    found = planned(row(cursor_at=at("25T08:00"), settings={"catch_up": "all"}))
    assert (hours(found), found.dropped) == ([9, 10, 11, 12], ())
    assert found.next_fire_at == at("25T13:00")


def test_all_goes_on_in_batches_and_lets_the_others_have_their_turn() -> None:
    schedule = row(cursor_at=at("23T12:00"), settings={"catch_up": "all"})
    found = planned(schedule)
    assert len(found.fires) == BATCH
    assert found.cursor_at == found.fires[-1].date
    assert found.next_fire_at == NOW, "again in the next round, behind what is due longer"
    seen = [fire.date for fire in found.fires]
    while found.next_fire_at == NOW:
        found = planned(row(cursor_at=found.cursor_at, settings={"catch_up": "all"}))
        seen += [fire.date for fire in found.fires]
    assert seen == [at("23T12:00") + n * HOUR for n in range(1, 49)]


def test_all_has_a_limit_and_what_is_older_is_one_row_with_a_count() -> None:
    found = planned(row(cursor_at=at("05T12:00"), settings={"catch_up": "all"}))
    (gap,) = found.dropped
    assert gap.count == 20 * 24 - CATCH_UP_LIMIT
    assert gap.until == found.fires[0].date - HOUR
    few = planned(row(cursor_at=at("25T01:00"), settings={"catch_up": "all", "catch_up_limit": 3}))
    assert hours(few) == [10, 11, 12]
    assert len(few.dropped) == 8


def test_none_runs_nothing_that_is_late() -> None:
    late = planned(row(cursor_at=at("25T10:00"), settings={"catch_up": "none"}))
    assert (hours(late), dropped(late)) == (
        [],
        [(11, "missed", "catch_up", 1), (12, "missed", "catch_up", 1)],
    )
    on_time = planned(row(cursor_at=at("25T10:00"), settings={"catch_up": "none"}), at("25T12:00:30"))
    assert hours(on_time) == [12]


def test_slots_older_than_catch_up_within_are_left() -> None:
    settings = {"catch_up": "all", "catch_up_within": 2 * 3600.0}
    found = planned(row(cursor_at=at("25T08:00"), settings=settings))
    assert (hours(found), dropped(found)) == (
        [11, 12],
        [(9, "missed", "catch_up", 1), (10, "missed", "catch_up", 1)],
    )
    assert found.fires[0].detail == {"late_s": 90 * 60}
    latest = planned(
        row("0 6 * * *", cursor_at=at("24T06:00"), settings={"catch_up_within": 3600.0}),
    )
    assert (hours(latest), dropped(latest)) == ([], [(6, "missed", "catch_up", 1)])


def test_a_blackout_skips_the_slot_with_its_reason_and_the_latest_free_one_runs() -> None:
    settings = {"blackouts": [{"weekdays": ["wed"], "name": "quiet"}]}  # the 25th is a Wednesday
    found = planned(row("0 */6 * * *", cursor_at=at("24T06:00"), settings=settings))
    assert [fire.date for fire in found.fires] == [at("24T18:00")]
    assert dropped(found) == [
        (12, "missed", "catch_up", 1),
        (0, "skipped", "blackout", 1),
        (6, "skipped", "blackout", 1),
        (12, "skipped", "blackout", 1),
    ]
    assert "quiet" in found.dropped[1].detail["text"]  # type: ignore[index]


def test_a_long_blackout_is_one_row() -> None:
    settings = {"blackouts": [{"weekdays": ["mon", "tue", "wed"]}]}
    found = planned(row(cursor_at=at("22T22:00"), settings=settings))
    (before,) = found.fires
    assert before.date == at("22T23:00")
    (gap,) = found.dropped
    assert (gap.outcome, gap.reason, gap.count) == (SlotOutcome.SKIPPED, "blackout", 61)


def test_no_slot_comes_after_end_time() -> None:
    schedule = row(
        cursor_at=at("25T09:00"), settings={"catch_up": "all", "end_time": at("25T11:00").isoformat()}
    )
    found = planned(schedule)
    assert (hours(found), found.next_fire_at) == ([10, 11], None)
    assert planned(row("@once", start_time=at("25T12:00"), settings=dict(schedule.settings))).fires == ()


@pytest.mark.parametrize(
    ("choice", "runs", "rows"),
    [
        ("skip", [], [(9, "skipped", "paused", 1), (10, "skipped", "paused", 1)]),
        ("latest", [10], [(9, "skipped", "paused", 1)]),
        ("all", [9, 10], []),
    ],
)
def test_what_somebody_said_about_a_pause_holds_for_its_slots_only(
    choice: str, runs: list[int], rows: list[Any]
) -> None:
    resumed = {"missed_policy": choice, "missed_until": at("25T10:30"), "settings": {"catch_up": "none"}}
    found = planned(row(cursor_at=at("25T08:00"), **resumed))
    assert (hours(found), dropped(found), found.next_fire_at) == (runs, rows, NOW)
    after = planned(row(cursor_at=found.cursor_at, **resumed))
    assert (hours(after), len(after.dropped)) == ([], 2), "then its own catch_up decides"


def test_the_preview_says_what_each_choice_would_do() -> None:
    schedule = row(status=ScheduleStatus.INACTIVE, cursor_at=at("19T12:00"))
    found = catchup.missed(schedule, table_of(schedule, week_start="sunday"), now=NOW)
    assert (found.count, found.first, found.last) == (144, at("19T13:00"), at("25T12:00"))
    assert {mode: (c.runs, c.dropped) for mode, c in found.choices.items()} == {
        "skip": (0, 144),
        "latest": (1, 143),
        "all": (100, 44),
    }


def test_enabling_gives_the_period_under_way_its_run_when_asked() -> None:
    schedule = row(settings={"create_initial_pipeline_run": True})
    table = table_of(schedule, week_start="sunday")
    look = first_look(schedule, table, now=NOW, enabled=True)
    assert (look.next_fire_at, look.initial) == (NOW, True)
    found = planned(row(cursor_at=look.cursor_at, missed_policy="latest", missed_until=NOW))
    assert hours(found) == [12]
    assert first_look(schedule, table, now=NOW).next_fire_at == at("25T13:00"), "an edit does not"
    had = row(settings=dict(schedule.settings), cursor_at=at("25T12:00"))
    assert first_look(had, table, now=NOW, enabled=True).next_fire_at == at("25T13:00")
    early = row(settings=dict(schedule.settings), start_time=at("25T12:15"))
    assert first_look(early, table, now=NOW, enabled=True).next_fire_at == at("25T13:00")


def test_always_on_backs_off_after_failures_and_goes_on_at_once_after_a_success() -> None:
    always, ended = row("@always_on", cursor_at=at("25T12:00")), NOW - timedelta(seconds=3)
    waits = planned(always, recent=Recent(last_end=ended, failures=4))
    assert (waits.fires, waits.next_fire_at) == ((), ended + timedelta(seconds=8))
    assert planned(always, recent=Recent(last_end=ended, failures=2)).fires
    assert planned(always, recent=Recent(last_end=ended)).fires


def test_a_landing_run_starts_as_much_earlier_as_it_takes_and_says_so() -> None:
    schedule = row("0 6 * * *", cursor_at=at("24T06:00"), settings={"landing_time_enabled": True})
    known = Recent(expected=Expected(412, 7))
    early = planned(schedule, at("25T05:53"), known)
    assert early.fires == ()
    found = planned(schedule, at("25T05:53:08"), known)
    (fire,) = found.fires
    assert (fire.date, fire.reason) == (at("25T06:00"), "expected 412 s from 7 runs")
    assert fire.detail == {"expected_s": 412, "runs": 7}
    # How long the next one takes is known better later: it is looked at again half way.
    assert found.next_fire_at is not None
    assert at("25T17:00") < found.next_fire_at < at("25T19:00")


@given(
    st.integers(1, 10_000),
    st.sampled_from(["* * * * *", "@hourly", "@every 90s", "0 9 * * 1-5"]),
    st.integers(1, 5000),
    st.integers(0, 330 * 1440),
)
def test_jitter_is_the_same_everywhere_and_never_reaches_the_next_slot(
    schedule_id: int, interval: str, window: int, minutes: int
) -> None:
    schedule = row(interval, id=schedule_id, settings={"jitter_s": float(window)})
    table: Timetable = table_of(schedule, week_start="sunday")
    slot = table.after(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes))
    assert slot is not None
    starts, following = catchup.starts_at(schedule, table, slot), table.after(slot)
    assert following is not None
    assert slot <= starts < min(slot + timedelta(seconds=window), following)
    assert starts == catchup.starts_at(schedule, table, slot)
    # It is due when it starts, not before.
    ready = row(
        interval, id=schedule_id, cursor_at=slot - timedelta(microseconds=1), settings=schedule.settings
    )
    assert catchup.due_until(ready, table, starts) == slot
    if starts > slot:
        assert catchup.due_until(ready, table, starts - timedelta(microseconds=1)) == table.before(
            slot - timedelta(microseconds=1)
        )


@pytest.mark.parametrize(
    ("interval", "settings", "pointer"),
    [
        ("@once", {"jitter_s": 5.0}, "/settings/jitter_s"),
        ("@daily", {"blackouts": [{"weekdays": ["noday"]}]}, "/settings/blackouts"),
    ],
)
def test_a_setting_that_does_not_fit_names_itself(
    interval: str, settings: dict[str, Any], pointer: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        catchup.judge(interval, "UTC", settings, None)
    assert refused.value.errors[0].pointer.startswith(pointer)
