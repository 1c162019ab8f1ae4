"""`@every`: elapsed time from an anchor, and the interval of any slot against a count by hand."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.models.rows import ScheduleRow
from app.models.states import ScheduleStatus, ScheduleType
from app.scheduler.tables_of import table_of
from app.scheduler.timetable import InvalidInterval, parse


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("interval", "seconds"),
    [
        ("@every 90s", 90),
        ("@every 1h30m", 5400),
        ("@EVERY 2d 1s", 172_801),
        ("  @every   5m ", 300),
        ("@every 1s", 1),
    ],
)
def test_a_length_is_the_sum_of_its_parts(interval: str, seconds: int) -> None:
    table = parse(interval, anchor=at("2026-01-01"))
    assert table.kind == "calendar"
    assert table.interval_of(at("2026-01-01")) == (
        at("2026-01-01"),
        at("2026-01-01") + timedelta(seconds=seconds),
        seconds,
        at("2026-01-01") - timedelta(seconds=seconds),
    )


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        ("@every", "not a length"),
        ("@every 90", "'90' is not a length"),
        ("@every 1.5h", "not a length"),
        ("@every 30m1h", "not a length"),
        ("@every 0s", "shorter than a second"),
        ("@every 4000d", "longer than ten years"),
    ],
)
def test_what_is_no_length_is_refused(interval: str, words: str) -> None:
    with pytest.raises(InvalidInterval, match=words) as caught:
        parse(interval)
    assert "@every 1h30m" in caught.value.hint


@settings(max_examples=150, deadline=None)
@given(
    seconds=st.integers(1, 5 * 86_400),
    anchor=st.datetimes(datetime(2000, 1, 1), datetime(2050, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    now=st.datetimes(datetime(2000, 1, 1), datetime(2050, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
)
def test_slots_are_whole_steps_from_the_anchor(seconds: int, anchor: datetime, now: datetime) -> None:
    table, step = parse(f"@every {seconds}s", "Europe/Berlin", anchor=anchor), timedelta(seconds=seconds)
    whole = anchor.replace(microsecond=0)
    first, latest = table.after(now), table.before(now)
    assert first is not None
    assert latest is not None
    assert latest <= now < first == latest + step
    assert (first - whole) % step == timedelta()
    end = now + 5 * step + timedelta(seconds=1)
    assert table.between(now, end, 9) == [first + step * n for n in range(9) if first + step * n <= end]
    assert table.count_between(now, end, 3) == 3
    assert table.count_between(now, end) == len(table.between(now, end, 9))


def test_the_clocks_on_the_wall_do_not_matter() -> None:
    table = parse("@every 1d", "Europe/Berlin", anchor=at("2026-03-28 08:00"))
    local = [
        t.astimezone(ZoneInfo("Europe/Berlin")) for t in table.between(at("2026-03-28"), at("2026-03-30"), 9)
    ]
    assert [f"{t:%d %H:%M}" for t in local] == ["28 09:00", "29 10:00"]


def test_the_anchor_is_start_time_else_when_it_was_enabled_else_when_it_was_made() -> None:
    def first(**times: datetime) -> datetime | None:
        row = ScheduleRow(
            id=1,
            name="t",
            pipeline_uuid="p",
            schedule_type=ScheduleType.TIME,
            status=ScheduleStatus.ACTIVE,
            created_at=at("2026-01-01 00:00:03"),
            updated_at=at("2026-01-01"),
            schedule_interval=" @Every 1h",
            **times,
        )
        return table_of(row, week_start="sunday").after(at("2026-05-05 12:30"))

    enabled, start = at("2026-02-01 00:00:02.5"), at("2026-03-01 00:00:01")
    assert first() == at("2026-05-05 13:00:03")
    assert first(last_enabled_at=enabled) == at("2026-05-05 13:00:02")
    assert first(last_enabled_at=enabled, start_time=start) == at("2026-05-05 13:00:01")


def test_the_ends_of_the_calendar_do_no_harm() -> None:
    table = parse("@every 3660d")
    assert table.before(datetime.min.replace(tzinfo=UTC)) is None
    assert table.after(datetime.max.replace(tzinfo=UTC)) is None
    assert table.after(at("8999-12-31")) is None


@settings(max_examples=80, deadline=None)
@given(
    interval=st.sampled_from(
        ["0 9 * * 1-5", "30 2 * * *", "*/30 * * * *", "0 0 31 * *", "0 12 * * 5#2", "15 1,2 * * 0", "@weekly"]
    ),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo"]),
    gap=st.sampled_from(["next", "skip"]),
    overlap=st.sampled_from(["first", "both"]),
    day=st.integers(0, 365),
)
def test_an_interval_is_what_lies_between_neighbours_in_one_list(
    interval: str, zone: str, gap: str, overlap: str, day: int
) -> None:
    table = parse(interval, zone, "sunday", gap, overlap)
    begin = at("2026-01-01") + timedelta(days=day)
    slots = table.between(begin, begin + timedelta(days=100), 60)
    for previous, slot, end in zip(slots, slots[1:], slots[2:], strict=False):
        expected = (slot, end, (end - slot) // timedelta(seconds=1), previous)
        assert table.interval_of(slot) == expected
        assert table.interval_of(slot.astimezone(ZoneInfo(zone))) == expected
