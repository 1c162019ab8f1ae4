"""Slots of intervals and cron expressions, checked against croniter (dates), cronsim and a scan (zones)."""

import doctest
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from croniter import CroniterBadDateError, croniter
from cronsim import CronSim
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from app.scheduler import timetable, wallclock
from app.scheduler.timetable import InvalidInterval, Timetable, parse

ZONES = (
    "Europe/Berlin",
    "Europe/London",
    "America/New_York",
    "America/Los_Angeles",
    "America/St_Johns",
    "America/Santiago",
    "America/Havana",
    "Australia/Lord_Howe",
    "Australia/Sydney",
    "Pacific/Auckland",
    "Pacific/Chatham",
    "Africa/Cairo",
    "Africa/Casablanca",
    "Asia/Beirut",
    "Asia/Jerusalem",
    "Atlantic/Azores",
)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def offset(zone: str, instant: datetime) -> timedelta:
    return instant.astimezone(ZoneInfo(zone)).utcoffset()


@cache
def changes(zone: str, year: int = 2026) -> tuple[datetime, ...]:
    """The minutes at which the zone's offset changes, found by a scan of its own."""
    hours = [at(f"{year}-01-01") + timedelta(hours=n) for n in range(8760)]
    return tuple(
        next(
            m for m in (a + timedelta(minutes=n) for n in range(1, 61)) if offset(zone, m) != offset(zone, a)
        )
        for a, b in pairwise(hours)
        if offset(zone, a) != offset(zone, b)
    )


@cache
def scan(zone: str, change: datetime, hours: int = 30) -> tuple[tuple[datetime, datetime], ...]:
    """(instant, wall) of each minute around a change."""
    minutes = (change + timedelta(minutes=n) for n in range(-hours * 60, hours * 60 + 1))
    return tuple((minute, minute.astimezone(ZoneInfo(zone)).replace(tzinfo=None)) for minute in minutes)


def around(spec: str, zone: str, change: datetime, hours: int = 30) -> list[datetime]:
    span = timedelta(hours=hours)
    return parse(spec, zone).between(change - span, change + span, 10_000)


@pytest.mark.parametrize(
    ("interval", "after", "slot"),
    [
        ("@hourly", "2026-01-01 10:00", "2026-01-01 11:00"),
        ("@daily", "2026-01-01 10:00", "2026-01-02"),
        ("@midnight", "2026-01-01 00:00", "2026-01-02"),
        ("@weekly", "2026-11-23 10:00", "2026-11-29"),
        ("@monthly", "2026-01-31 23:59:59.999", "2026-02-01"),
        ("@yearly", "2026-01-01", "2027-01-01"),
        ("  0  6 * *\tMON-fri ", "2026-11-20 06:00", "2026-11-23 06:00"),
        ("0 0 * jan,jul sun", "2026-02-01", "2026-07-05"),
        ("0 0 * * 7", "2026-11-23", "2026-11-29"),
        ("0 12 L * *", "2026-02-01", "2026-02-28 12:00"),
        ("0 0 * * 5#2", "2026-11-20", "2026-12-11"),
        ("0 0 * * L5", "2026-11-20", "2026-11-27"),
        ("0 0 15W * *", "2026-11-01", "2026-11-16"),
        ("0 0 1W * *", "2026-08-01 00:00", "2026-08-03"),
        ("0 0 ? * 1", "2026-11-20", "2026-11-23"),
        ("0 0 13 * 5", "2026-11-12", "2026-11-13"),
        ("0 0 13 * 5", "2026-11-13", "2026-11-20"),
        ("0 22-2 * * *", "2026-11-13 00:30", "2026-11-13 01:00"),
        ("0 0 29 2 *", "2026-01-01", "2028-02-29"),
        ("0 0 29 2 1#5", None, None),
        ("0 0 * 2 1#5", "2026-01-01", "2044-02-29"),
        ("* * * * * */20", "2026-01-01 00:00:30", "2026-01-01 00:00:40"),
        ("0 0 1 1 * 30 2099", "2026-01-01", "2099-01-01 00:00:30"),
    ],
)
def test_the_first_slot_after_a_time(interval: str, after: str | None, slot: str | None) -> None:
    if after is None or slot is None:
        with pytest.raises(InvalidInterval, match="different crons"):
            parse(interval)
        return
    assert parse(interval).after(at(after)) == at(slot)
    assert parse(interval).before(at(slot)) == at(slot)


def test_the_week_begins_on_sunday_unless_the_project_says_monday() -> None:
    wednesday = at("2026-11-25")
    assert parse("@weekly").before(wednesday) == at("2026-11-22")
    assert parse("@weekly", "UTC", "monday").before(wednesday) == at("2026-11-23")
    assert parse("@daily", "UTC", "monday").before(wednesday) == wednesday


@pytest.mark.parametrize("interval", ["@once", "@always_on"])
def test_once_and_always_on_have_no_calendar(interval: str) -> None:
    table, now = parse(interval), at("2026-01-01")
    assert table.kind == interval[1:]
    assert (table.after(now), table.before(now)) == (None, None)
    assert table.between(now, at("2027-01-01"), 5) == []
    assert table.count_between(now, at("2027-01-01")) == 0
    assert table.interval_of(now) == (now, None, None, None)


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        ("", "0 fields"),
        ("* * *", "3 fields"),
        ("* * * * * * * *", "8 fields"),
        ("61 * * * *", "out of range"),
        ("* 24 * * *", "out of range"),
        ("*/0 * * * *", "step '0'"),
        ("60 * * * *", "minute '60' is out of range 0 to 59"),
        ("0 0 1-32 * *", "day of month '32' is out of range 1 to 31"),
        ("0 0 * * 1-8", "day of week '8' is out of range 0 to 7"),
        ("0 0 * * * 0 2100", "year '2100' is out of range 1970 to 2099"),
        ("5 1-20/0 * * *", "hour '1-20/0' has the step '0'"),
        ("0 1, * * *", "hour '1,' cannot be read"),
        ("0 0 * mon *", "month 'mon' cannot be read"),
        ("? * * * *", "Question mark"),
        ("@every", "not a length of time"),
        ("-5 * * * *", "not a cron expression"),
        ("@reboot", "unknown interval '@reboot'"),
        ("@fortnightly", "unknown interval"),
        ("every day at noon please", "not a cron expression"),
        ("H * * * *", "hashed and random"),
        ("1,r/5 * * * *", "hashed and random"),
        ("H(0-5) * * * *", "character"),
        ("٣ * * * *", "character"),
        ("5-5 * * * *", "ambiguous"),
        ("0 0 * * mon-mon", "ambiguous"),
        ("0 0 30 2 *", "never fires: no date is day of month '30', month '2'"),
        ("0 0 31 4,6,9,11 *", "never fires"),
        ("0 0 29 2 * 0 2027", "year '2027'"),
        ("0 0 1 * 5#2", "different things"),
        ("0 0 15W * mon", "different things"),
        ("0 0 * * 5#6", "day_of_week"),
        ("0 0 * * 5#2,1", "mixing"),
        ("0 " * 150, "at most 200 characters"),
        ("0 " * 90, "90 fields"),
    ],
)
def test_an_interval_that_cannot_be_meant_is_refused_with_the_reason(interval: str, words: str) -> None:
    with pytest.raises(InvalidInterval, match=words) as caught:
        parse(interval)
    assert caught.value.code == "invalid_schedule_interval"
    assert caught.value.status == 422


@pytest.mark.parametrize(
    "zone",
    [
        "Europe/Berln",
        "Europe",
        "",
        "right/UTC",
        "localtime",
        "../../etc/passwd",
        "/etc/passwd",
        "a\0b",
        "é" * 400,
    ],
)
def test_an_unknown_zone_is_refused(zone: str) -> None:
    with pytest.raises(InvalidInterval, match="unknown time zone"):
        parse("@daily", zone)


def test_a_misspelled_zone_gets_a_hint() -> None:
    with pytest.raises(InvalidInterval) as caught:
        parse("@daily", "Europe/Berln")
    assert caught.value.hint == "Did you mean 'Europe/Berlin'?"


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(ValueError, match="aware"):
        parse("@daily").after(datetime(2026, 1, 1))  # noqa: DTZ001


def test_the_ends_of_the_calendar_do_no_harm() -> None:
    table = parse("0 0 1 * *", "Asia/Tokyo")
    first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=ZoneInfo("America/Lima"))
    assert table.before(first) is None
    assert table.after(first).year == 1900
    assert table.before(last).year == 8999
    assert parse("0 0 1 1 * 0 2020").after(at("2026-01-01")) is None
    assert parse("0 0 1 1 * 0 2020").before(at("2096-01-01")) == at("2020-01-01")


def test_a_year_of_minutes_is_counted_up_to_the_limit() -> None:
    table, new_year = parse("* * * * *"), at("2026-01-01")
    assert table.count_between(at("2025-01-01"), new_year) == 10_000
    assert table.count_between(new_year - timedelta(minutes=90), new_year) == 90
    assert len(table.between(at("2025-01-01"), new_year, 3)) == 3


@pytest.mark.parametrize(
    ("interval", "zone", "slot", "end", "seconds", "previous"),
    [
        ("@daily", "UTC", "2026-05-05", "2026-05-06", 86_400, "2026-05-04"),
        ("@daily", "Europe/Berlin", "2026-03-28 23:00", "2026-03-29 22:00", 82_800, "2026-03-27 23:00"),
        ("@monthly", "UTC", "2026-03-01", "2026-04-01", 31 * 86_400, "2026-02-01"),
        ("0 9 * * 1-5", "UTC", "2026-11-20 09:00", "2026-11-23 09:00", 3 * 86_400, "2026-11-19 09:00"),
        ("@hourly", "UTC", "2026-11-20 09:17", "2026-11-20 10:00", 2_580, "2026-11-20 09:00"),
    ],
)
def test_the_interval_of_a_slot_is_bounded_by_its_real_neighbours(
    interval: str, zone: str, slot: str, end: str, seconds: int, previous: str
) -> None:
    assert parse(interval, zone).interval_of(at(slot)) == (at(slot), at(end), seconds, at(previous))


# -- daylight saving -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "zone", "day", "expected"),
    [
        ("30 2 * * *", "Europe/Berlin", "2026-03-29", ["03:00+02"]),
        (
            "*/30 * * * *",
            "Europe/Berlin",
            "2026-03-29",
            ["01:00+01", "01:30+01", "03:00+02", "03:30+02", "04:00+02"],
        ),
        ("0 */2 * * *", "Europe/Berlin", "2026-03-29", ["04:00+02"]),
        ("0,30 2,3 * * *", "Europe/Berlin", "2026-03-29", ["03:00+02", "03:30+02"]),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25", ["02:30+02"]),
        ("0 2,3 * * *", "Europe/Berlin", "2026-10-25", ["02:00+02", "03:00+01"]),
        (
            "0 * * * *",
            "Europe/Berlin",
            "2026-10-25",
            ["01:00+02", "02:00+02", "02:00+01", "03:00+01", "04:00+01"],
        ),
        ("30 1 * * *", "America/New_York", "2026-11-01", ["01:30-04"]),
        ("30 2 * * *", "America/New_York", "2026-11-01", ["02:30-05"]),
        ("* 2 * * * 0", "Europe/Berlin", "2026-03-29", []),
    ],
)
def test_the_night_the_clocks_change(spec: str, zone: str, day: str, expected: list[str]) -> None:
    start = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone), hour=0, minute=59)
    slots = parse(spec, zone).between(start, start.replace(hour=4, minute=0), 100)
    assert [f"{slot.astimezone(ZoneInfo(zone)):%H:%M%z}"[:8] for slot in slots] == expected


def test_every_zone_here_changes_its_clocks_in_2026() -> None:
    assert {zone: len(changes(zone)) for zone in ZONES} == dict.fromkeys(ZONES, 2)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize(
    "spec", ["30 2 * * *", "0 0 * * *", "30 1 * * *", "15,45 0-3 * * *", "0 23 * * 6,0", "10 3 1-31 * *"]
)
def test_cronsim_agrees_on_fixed_times_when_clocks_change(zone: str, spec: str) -> None:
    for change in changes(zone):
        start, end = change - timedelta(hours=30), change + timedelta(hours=30)
        theirs = []
        for slot in CronSim(spec, start.astimezone(ZoneInfo(zone))):
            if slot.astimezone(UTC) > end:
                break
            theirs.append(slot.astimezone(UTC))
        assert around(spec, zone, change) == theirs


@settings(max_examples=80, deadline=None)
@given(
    zone=st.sampled_from(ZONES),
    spring=st.booleans(),
    minutes=st.sets(st.integers(0, 59), min_size=1, max_size=4),
    hours=st.sets(st.integers(0, 23), min_size=1, max_size=6),
)
def test_a_fixed_time_fires_when_the_clock_first_reaches_it(zone, spring, minutes, hours) -> None:
    change = changes(zone)[spring]
    spec = f"{','.join(map(str, minutes))} {','.join(map(str, hours))} * * *"
    expected, highest = set(), scan(zone, change)[0][1]
    for instant, wall in scan(zone, change):
        passed = (
            highest + timedelta(minutes=n) for n in range(1, int((wall - highest).total_seconds() // 60) + 1)
        )
        if any(w.minute in minutes and w.hour in hours for w in passed):
            expected.add(instant)
        highest = max(highest, wall)
    assert around(spec, zone, change) == sorted(expected)


@settings(max_examples=60, deadline=None)
@given(
    zone=st.sampled_from(ZONES),
    spring=st.booleans(),
    step=st.integers(1, 40),
    hours=st.sampled_from(["*", "*/2", "*/5", "0-4", "2", "23,0"]),
)
def test_a_wildcard_time_fires_whenever_the_clock_shows_it(zone, spring, step, hours) -> None:
    change = changes(zone)[spring]
    shown = {0, *range(0, 24, 2)} if hours == "*/2" else set(range(0, 24, 5)) if hours == "*/5" else None
    shown = shown or {"*": set(range(24)), "0-4": set(range(5)), "2": {2}, "23,0": {23, 0}}[hours]
    expected = [i for i, wall in scan(zone, change) if wall.minute % step == 0 and wall.hour in shown]
    assert (
        around(f"*/{step} {hours} * * *", zone, change)
        == expected[expected[:1] == [scan(zone, change)[0][0]] :]
    )


# -- any expression --------------------------------------------------------------------------------------------


def field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    span = st.tuples(number, number).filter(lambda t: t[0] != t[1]).map(lambda t: f"{t[0]}-{t[1]}")
    step = st.one_of(st.just("*"), number.map(str), span).flatmap(
        lambda s: st.integers(1, 9).map(lambda n: f"{s}/{n}")
    )
    part = st.one_of(number.map(str), span, step)
    return st.one_of(st.just("*"), st.lists(part, min_size=1, max_size=3).map(",".join))


DAYS = st.one_of(
    st.just("*"), field(1, 31), st.just("L"), st.just("15,L"), st.integers(1, 31).map("{}W".format)
)
WEEKDAYS = st.one_of(
    st.just("*"),
    field(0, 6),
    st.builds("{}#{}".format, st.integers(0, 7), st.integers(1, 5)),
    st.integers(0, 6).map("L{}".format),
    st.sampled_from(["mon-fri", "sat,sun", "1#1,3#2", "0-7"]),
)
MONTHS = st.one_of(st.just("*"), field(1, 12), st.sampled_from(["feb", "jan-mar"]))
EXPRESSIONS = st.one_of(
    st.tuples(field(0, 59), field(0, 23), DAYS, MONTHS, WEEKDAYS),
    st.tuples(field(0, 59), field(0, 23), DAYS, MONTHS, WEEKDAYS, field(0, 59)),
    st.tuples(field(0, 59), field(0, 23), DAYS, MONTHS, WEEKDAYS, st.just("0"), st.just("2027,2030")),
).map(" ".join)
TIMES = st.datetimes(datetime(2024, 1, 1), datetime(2031, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


def parsed(expression: str, zone: str = "UTC") -> Timetable:
    try:
        return parse(expression, zone)
    except InvalidInterval:
        assume(False)
        raise


@settings(max_examples=200, deadline=None)
@given(EXPRESSIONS, TIMES)
@example("0 0 29 2 *", at("2096-12-01"))
@example("0 0 31 * *", at("2026-04-30"))
def test_croniter_finds_the_same_slot_in_utc(expression: str, t: datetime) -> None:
    table = parsed(expression)
    try:
        theirs = croniter(expression, t, ret_type=datetime).get_next()
    except CroniterBadDateError:
        theirs = None
    assert table.after(t) == theirs


@settings(max_examples=150, deadline=None)
@given(EXPRESSIONS, TIMES, st.sampled_from(ZONES))
def test_after_before_and_between_are_one_sequence(expression: str, t: datetime, zone: str) -> None:
    table = parsed(expression, zone)
    first = table.after(t)
    assume(first is not None)
    assert first > t
    assert table.before(first) == first
    earlier = table.before(first - timedelta(microseconds=1))
    assert earlier is None or (earlier <= t and table.after(earlier) == first)
    slots = table.between(t, first + timedelta(days=40), 4)
    assert slots[0] == first
    assert slots[1:] == [table.after(slot) for slot in slots[:-1]]
    assert [table.before(b - timedelta(microseconds=1)) for _a, b in pairwise(slots)] == slots[:-1]


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(max_size=30), st.text("0123456789*/,-#?LWlwhr ", max_size=25)))
def test_no_text_does_worse_than_being_refused(text: str) -> None:
    try:
        table = parse(text)
    except InvalidInterval:
        return
    assert table.kind != "calendar" or table.after(at("1970-01-01")) is not None


def test_the_examples_in_the_docstrings() -> None:
    for module in (timetable, wallclock):
        assert doctest.testmod(module).failed == 0
        assert doctest.testmod(module).attempted > 0


@pytest.mark.parametrize("policy", [("shift", "first"), ("next", "second"), ("", "first")])
def test_an_unknown_rule_for_daylight_saving_is_refused(policy: tuple[str, str]) -> None:
    with pytest.raises(
        InvalidInterval, match=r"dst_gap must be next or skip|dst_overlap must be first or both"
    ):
        parse("@daily", "UTC", "sunday", *policy)


def test_a_reversed_range_goes_round() -> None:
    """As in Mage: `22-2` is a night, `fri-mon` a long weekend, `nov-feb` a winter."""
    night = parse("0 22-2 * * *").between(at("2026-01-01 12:00"), at("2026-01-02 12:00"), 9)
    assert [slot.hour for slot in night] == [22, 23, 0, 1, 2]
    assert [
        slot.day for slot in parse("0 0 * * fri-mon").between(at("2026-11-01 12:00"), at("2026-11-10"), 9)
    ] == [2, 6, 7, 8, 9]
