"""2,000 malformed intervals, zones and settings: each is refused with a reason, in a bounded number of steps.

Every one is malformed by construction: a sound definition with one planted fault. Steps are calls of Python
functions, not seconds, so that a busy machine changes nothing.
"""

import random
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from types import FrameType
from typing import Any

import pytest

from app.errors import InvalidInput
from app.models.rows import ScheduleRow
from app.models.states import ScheduleStatus, ScheduleType
from app.scheduler import blackouts
from app.scheduler.tables_of import table_of
from app.scheduler.timetable import zone_named

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PARTS, EACH = 8, 250
#: The dearest is an unknown zone, compared with the 600 that there are: a fraction of a second.
MAX_CALLS = 250_000
RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7), (0, 59), (1970, 2099))
JUNK = ["", " ", "*", "\0", "é", "٣", "\ud800", "🕑", "%", "H", "&&", "--", "\n", "0x1", "1e3", "a" * 300]


def bad_field(draw: random.Random, low: int, high: int) -> str:
    over = draw.choice([high + draw.randint(1, 10_000), low - 1 if low else high + 1])
    good = draw.randint(low, high)
    return draw.choice(
        [
            f"{over}",
            f"{good}-{high + draw.randint(1, 99)}",
            f"{good},{high + draw.randint(1, 99)}",
            f"*/{'0' * draw.randint(1, 3)}",
            f"{low}-{high}/0",
            f"{good}-{good}",
            f"{good}--{high}",
            f"{good},",
            f",{good}",
            f"*/{good or 1}/{good or 1}",
            f"-{good}",
            f"+{good}",
            f"{good}.5",
            f"*/-{good or 1}",
            f"{'*' * draw.randint(2, 5)}",
            f"{good}{draw.choice('$&()[]{}|~^@!:;<>=é٣')}",
            draw.choice(["foo", "noon", "H", "R", "h/5", "l-3", "0x10", "#", "/", "-", "_", "w", "?5"]),
            f"{good}" * 99,
        ]
    )


def bad_cron(draw: random.Random) -> str:
    fields = [str(draw.randint(low, high)) for low, high in RANGES[: draw.randint(5, 7)]]
    fields[2:5] = "*", "*", "*"
    index = draw.randrange(len(fields))
    fields[index] = bad_field(draw, *RANGES[index])
    return " ".join(fields)


def bad_count(draw: random.Random) -> str:
    return " ".join(["*"] * draw.choice([1, 2, 3, 4, 8, 9, 50, 100]))


def never(draw: random.Random) -> str:
    day, month = draw.choice([("30", "2"), ("31", "4,6,9,11"), ("31", "feb"), ("30,31", "2"), ("31", "jun")])
    return f"{draw.randint(0, 59)} {draw.randint(0, 23)} {day} {month} *"


def bad_name(draw: random.Random) -> str:
    known = draw.choice(["once", "hourly", "daily", "weekly", "monthly", "always_on", "yearly"])
    at = draw.randrange(len(known))
    return draw.choice(
        [f"@{known[:at]}{known[at + 1 :]}x", f"@ {known}", f"@{known} {draw.randint(0, 9)}", f"@@{known}"]
    )


def bad_every(draw: random.Random) -> str:
    n = draw.randint(1, 999)
    lengths = [
        f"{n}",
        f"-{n}s",
        f"{n}.5m",
        f"{n}m{n}h",
        f"{n}w",
        f"{n}s{n}s",
        f"{n * 10**7}h",
        f"{n}ms",
        "0s",
    ]
    lengths += ["", "s", "0d0h", f"{n} hours", "9" * 100 + "s", "1h٣m", "PT90S", "*/5"]
    return f"@every {draw.choice(lengths)}"


def row(**changes: Any) -> ScheduleRow:
    values: dict[str, Any] = {"schedule_interval": "@daily", "timezone": "Europe/Berlin", **changes}
    return ScheduleRow(
        id=1,
        name="t",
        pipeline_uuid="p",
        schedule_type=ScheduleType.TIME,
        status=ScheduleStatus.ACTIVE,
        created_at=NOW,
        updated_at=NOW,
        **values,
    )


def interval(draw: random.Random) -> ScheduleRow:
    make = draw.choice([bad_cron, bad_cron, bad_cron, bad_count, never, bad_name, bad_every])
    return row(schedule_interval=make(draw))


def bad_zone(draw: random.Random) -> ScheduleRow:
    known = draw.choice(["Europe/Berlin", "America/New_York", "Asia/Tokyo", "Etc/GMT+3"])
    at = draw.randrange(1, len(known))
    wrong = [f"{known[:at]}{known[at + 1 :]}q", f"../{known}", f"/{known}", f"{known}/", f"right/{known}"]
    wrong += [f"posix/{known}", "localtime", "Factory", "+02:00", "CEST6", "Europe", *JUNK[1:]]
    return row(timezone=draw.choice(wrong))


def bad_setting(draw: random.Random) -> ScheduleRow:
    key = draw.choice(["dst_gap", "dst_overlap"])
    value = draw.choice(["shift", "second", "NEXT", 5, True, ["next"], {"next": 1}, "next ", *JUNK[1:]])
    lands = {"landing_time_enabled": True}
    return draw.choice(
        [row(settings={key: value}), row(settings=lands), row(settings=lands, schedule_interval="@always_on")]
    )


def bad_blackout(draw: random.Random) -> ScheduleRow:
    junk = draw.choice([None, 5, 1.5, True, [], {}, [[]], "x", *JUNK])
    day = f"2026-{draw.randint(1, 12):02}-{draw.randint(1, 28):02}"
    rules: list[Any] = [
        junk if not isinstance(junk, dict) else "rule",
        {},
        {"from": day},
        {"to": day},
        {"from": day, "to": "2025-01-01"},
        {"from": day, "to": "2026-02-30"},
        {"from": day, "to": junk},
        {"from": junk, "to": day},
        {"from": f"{day}T25:00", "to": day},
        {"from": "22:00", "to": day},
        {"from": "22:00", "to": "22:00"},
        {"from": "24:30", "to": "06:00"},
        {"from": "9:00", "to": "10:00"},
        {"from": day, "to": day, "name": draw.choice([5, "", " ", "n" * 101, []])},
        {"from": day, "to": day, "until": day},
        {"from": day, "to": day, "~/\ud800": 1},
        {"weekdays": junk},
        {"weekdays": [junk]},
        {"weekdays": [draw.randint(0, 7)]},
        {"weekdays": ["mon"] * 8},
        {"holidays": draw.choice(["XX", "de", "Germany", False, 5, [], "", "D" * 999, "\0"])},
        {"holidays": "DE", "subdivision": draw.choice(["XX", 5, [], "", "by"])},
        {"holidays": "DE", "weekdays": ["sun"]},
        {"subdivision": "BY"},
    ]
    sound = [{"weekdays": ["sun"]}] * draw.randint(0, 3)
    fault = draw.choice(rules)
    whole = draw.choice([5, "x", True, {"weekdays": ["sun"]}, {1, 2}, [{"weekdays": ["sun"]}] * 101])
    return row(settings={"blackouts": draw.choice([[*sound, fault]] * 9 + [whole])})


KINDS: tuple[Callable[[random.Random], ScheduleRow], ...] = (
    interval,
    interval,
    bad_zone,
    bad_setting,
    bad_blackout,
)


def read(schedule: ScheduleRow) -> None:
    table = table_of(schedule, week_start="sunday")
    blackouts.parse(schedule.settings.get("blackouts"), table.zone.key)


def calls_of(work: Callable[[], object]) -> int:
    count = 0

    def profile(_frame: FrameType, event: str, _arg: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


@pytest.fixture(scope="module", autouse=True)
def _what_is_read_once() -> None:
    """The names of the zones and of the calendars; they are no step of a definition's reading."""
    for value in ({"timezone": "Europe/Berln"}, {"settings": {"blackouts": [{"holidays": "XX"}]}}):
        with pytest.raises(InvalidInput):
            read(row(**value))


@pytest.mark.parametrize("part", range(PARTS))
def test_each_malformed_definition_is_refused_with_a_reason_and_soon(part: int) -> None:
    draw = random.Random(f"malformed {part}")
    for number in range(EACH):
        schedule = KINDS[number % len(KINDS)](draw)

        def refused(schedule: ScheduleRow = schedule) -> None:
            with pytest.raises(InvalidInput) as caught:
                read(schedule)
            assert len(caught.value.detail) > 15, schedule
            assert len(caught.value.detail) < 600, schedule
            caught.value.detail.encode()
            for error in caught.value.errors:
                assert error.pointer.startswith("/settings/blackouts")
                f"{error.pointer}{error.message}".encode()

        assert calls_of(refused) < MAX_CALLS, schedule


def test_a_sound_definition_is_read() -> None:
    read(row(settings={"dst_gap": "skip", "dst_overlap": "both", "blackouts": [{"holidays": "DE"}]}))
    assert zone_named("Etc/GMT+3").key == "Etc/GMT+3"
