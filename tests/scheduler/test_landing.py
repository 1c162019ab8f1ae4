"""Landing times: which they are, how long a run is expected to take, and when it therefore starts."""

from datetime import UTC, datetime, timedelta

import pytest

from app.models.rows import ScheduleRow
from app.models.states import ScheduleStatus, ScheduleType
from app.scheduler.landing import Expected, expected, fires_at, latest_due
from app.scheduler.tables_of import table_of
from app.scheduler.timetable import InvalidInterval, Timetable


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def landing(
    interval: str, start: str | None, zone: str | None = None, *, week_start: str = "sunday"
) -> Timetable:
    schedule = ScheduleRow(
        id=1,
        name="t",
        pipeline_uuid="p",
        schedule_type=ScheduleType.TIME,
        status=ScheduleStatus.ACTIVE,
        created_at=at("2026-01-01"),
        updated_at=at("2026-01-01"),
        schedule_interval=interval,
        timezone=zone,
        start_time=at(start) if start else None,
        settings={"landing_time_enabled": True},
    )
    return table_of(schedule, week_start=week_start)


@pytest.mark.parametrize(
    ("interval", "start", "zone", "slots"),
    [
        ("@hourly", "2026-01-01 00:17:30", "UTC", ["2026-02-01 00:17:30", "2026-02-01 01:17:30"]),
        ("@daily", "2026-01-01 06:30", "UTC", ["2026-02-01 06:30", "2026-02-02 06:30"]),
        ("@daily", "2026-01-01 06:30", "Europe/Berlin", ["2026-02-01 06:30", "2026-02-02 06:30"]),
        ("@weekly", "2026-01-07 06:30", "UTC", ["2026-02-04 06:30", "2026-02-11 06:30"]),
        ("@weekly", "2026-01-07 23:30", "Europe/Berlin", ["2026-02-04 23:30", "2026-02-11 23:30"]),
        ("@monthly", "2026-01-31 06:30", "UTC", ["2026-02-28 06:30", "2026-03-31 06:30"]),
        ("@monthly", "2026-01-30 23:30", "Europe/Berlin", ["2026-02-27 23:30", "2026-03-30 22:30"]),
        ("@yearly", "2024-02-29 06:30", "UTC", ["2026-02-28 06:30", "2027-02-28 06:30"]),
        ("0 9 * * 1-5", None, "UTC", ["2026-02-02 09:00", "2026-02-03 09:00"]),
        ("@every 36h", "2026-01-31 18:00", "UTC", ["2026-02-02 06:00", "2026-02-03 18:00"]),
    ],
)
def test_a_slot_is_where_start_time_stands_in_its_period(
    interval: str, start: str | None, zone: str, slots: list[str]
) -> None:
    found = landing(interval, start, zone).between(at("2026-02-01"), at("2028-01-01"), 2)
    assert found == [at(slot) for slot in slots]


def test_a_landing_time_follows_the_rules_of_daylight_saving() -> None:
    table = landing("@daily", "2026-01-01 01:30", "Europe/Berlin")
    assert table.between(at("2026-03-28 03:00"), at("2026-03-30 03:00"), 9) == [
        at("2026-03-29 01:00"),
        at("2026-03-30 00:30"),
    ]


@pytest.mark.parametrize(
    ("runtimes", "seconds", "runs", "reason"),
    [
        ([], 0, 0, "no completed run yet"),
        ([0.2], 1, 1, "expected 1 s from 1 run"),
        ([400, 424], 412 + 9, 2, "expected 421 s from 2 runs"),
        ([412] * 9, 412, 7, "expected 412 s from 7 runs"),
        ([10, 10, 10, 10, 10, 10, 10, 9_999], 10, 7, "from 7 runs"),
        ([-5, float("nan"), float("inf"), 60], 60, 1, "from 1 run"),
        ([1e12], 366 * 86_400, 1, "from 1 run"),
    ],
)
def test_the_expectation_is_the_mean_and_half_the_spread_of_up_to_seven_runs(
    runtimes: list[float], seconds: int, runs: int, reason: str
) -> None:
    assert expected(runtimes) == (seconds, runs)
    assert reason in expected(runtimes).reason


@pytest.mark.parametrize(
    ("interval", "start", "slot", "known", "fires"),
    [
        ("@daily", "2026-01-01 06:30", "2026-02-02 06:30", Expected(600, 7), "2026-02-02 06:20"),
        # a run longer than what has passed of the day starts the day before, and is in time
        ("@daily", "2026-01-01 01:00", "2026-02-02 01:00", Expected(7200, 7), "2026-02-01 23:00"),
        ("@daily", "2026-01-01 06:30", "2026-02-02 06:30", None, "2026-02-02 00:00"),
        ("@daily", "2026-01-01 06:30", "2026-02-02 06:30", Expected(), "2026-02-02 00:00"),
        # to land at midnight a run has the day before
        ("@daily", "2026-01-01 00:00", "2026-02-02 00:00", None, "2026-02-01 00:00"),
        ("@hourly", "2026-01-01 00:17", "2026-02-02 05:17", None, "2026-02-02 05:00"),
        ("@weekly", "2026-01-07 06:30", "2026-02-04 06:30", None, "2026-02-01 00:00"),
        ("@monthly", "2026-01-31 06:30", "2026-02-28 06:30", None, "2026-02-01 00:00"),
        ("0 9 * * 1-5", None, "2026-02-02 09:00", None, "2026-01-30 09:00"),
        ("@every 90s", "2026-01-01", "2026-02-02 00:01:30", None, "2026-02-02 00:00"),
        ("@once", "2026-02-02 06:30", "2026-02-02 06:30", Expected(600, 1), "2026-02-02 06:20"),
        ("@once", "2026-02-02 06:30", "2026-02-02 06:30", None, "1900-01-01"),
    ],
)
def test_a_run_starts_so_early_that_it_lands(
    interval: str, start: str | None, slot: str, known: Expected | None, fires: str
) -> None:
    assert fires_at(landing(interval, start), at(slot), known) == at(fires)


@pytest.mark.parametrize("known", [None, Expected(0, 3), Expected(5_400, 7), Expected(200_000, 2)])
@pytest.mark.parametrize(
    ("interval", "start"),
    [
        ("@hourly", "2026-01-01 00:17"),
        ("@daily", "2026-01-01 06:30"),
        ("@daily", "2026-01-01 00:00"),
        ("@weekly", "2026-01-07 06:30"),
        ("@monthly", "2026-01-31 06:30"),
        ("0 9 * * 1-5", None),
        ("@every 7h", "2026-01-01 01:00"),
    ],
)
def test_the_latest_due_slot_is_the_last_one_whose_start_has_come(
    interval: str, start: str | None, known: Expected | None
) -> None:
    table, now = landing(interval, start, "Europe/Berlin"), at("2026-03-27 21:00")
    around = timedelta(days=70 if interval == "@monthly" else 12)
    for _look in range(20):
        slots = table.between(now - around, now + around, 10_000)
        come = [slot for slot in slots if fires_at(table, slot, known) <= now]
        assert latest_due(table, now, known) == come[-1]
        now += timedelta(hours=4, minutes=59, seconds=59)


def test_the_interval_of_a_landing_slot_lies_between_landings() -> None:
    table = landing("@monthly", "2026-01-31 06:30")
    assert table.interval_of(at("2026-02-28 06:30")) == (
        at("2026-02-28 06:30"),
        at("2026-03-31 06:30"),
        31 * 86_400,
        at("2026-01-31 06:30"),
    )


@pytest.mark.parametrize(
    ("interval", "start", "words"),
    [
        ("@always_on", "2026-01-01", "has no landing time"),
        ("@daily", None, "needs a start_time"),
        ("@once", None, "needs a start_time"),
    ],
)
def test_a_landing_time_that_cannot_be_is_refused(interval: str, start: str | None, words: str) -> None:
    with pytest.raises(InvalidInterval, match=words):
        landing(interval, start)
