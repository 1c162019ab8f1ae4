"""All clock changes of the zone database from 2020 to 2037, and every zone once. `make fuzz` runs it."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from cronsim import CronSim

from app.scheduler.timetable import parse
from tests.scheduler.clock_oracle import (
    EXPRESSIONS,
    MINUTE,
    Change,
    Expression,
    changes,
    distinct_changes,
    offset,
)
from tests.scheduler.test_clock_changes import differences

FIVE = ("*/30 * * * *", "0 */2 * * *", "30 2 * * *", "0,30 0,1,2,3 * * *", "@daily")
#: What cronsim cannot read: it has no `@` names, seconds and years, and writes the last Sunday `0L`.
NOT_CRONSIM = {text for text in EXPRESSIONS if text.startswith("@") or "L0" in text or len(text.split()) > 5}


def is_plain(change: Change) -> bool:
    """Whether cronsim keeps its own rule for times that follow the clock.

    It does not where clocks change by or at a part of an hour (Lord Howe, Chatham, Casey: it leaves out repeated
    minutes), and in a gap at midnight it runs `0 */5 * * 0,6` at 01:00, a time that the expression does not name.
    """
    zone = ZoneInfo(change.zone)
    shift = offset(zone, change.at) - offset(zone, change.at - MINUTE)
    wall = change.at.astimezone(zone).replace(tzinfo=None) - shift
    whole = wall.minute == 0 and shift % timedelta(hours=1) == timedelta()
    return whole and not (wall.hour == 0 and shift > timedelta())


@pytest.mark.parametrize("part", range(20))
def test_every_change_has_the_slots_of_the_oracle(part: int) -> None:
    for change in distinct_changes()[part::20]:
        assert differences(change) == []


def test_no_change_is_missed_by_looking_once_a_week() -> None:
    for name in sorted(available_timezones())[::7]:
        assert list(changes(name)) == list(changes(name, timedelta(hours=3)))


@pytest.mark.parametrize("part", range(10))
def test_every_zone_has_the_slots_of_the_oracle(part: int) -> None:
    for name in sorted(available_timezones() - {"Factory", "localtime"})[part::10]:
        found = list(changes(name)) or [(datetime(2026, 3, 29, 1, tzinfo=UTC), timedelta())]
        nearest = min((at for at, _shift in found), key=lambda at: abs(at - datetime(2027, 1, 1, tzinfo=UTC)))
        assert differences(Change(name, nearest), FIVE) == []


@pytest.mark.parametrize("text", [text for text in EXPRESSIONS if text not in NOT_CRONSIM])
def test_cronsim_agrees_at_every_change(text: str) -> None:
    fixed = Expression(text).fixed
    for change in (change for change in distinct_changes() if fixed or is_plain(change)):
        start, end = change.at - timedelta(hours=36), change.at + timedelta(hours=36)
        theirs = []
        for slot in CronSim(text, start.astimezone(ZoneInfo(change.zone))):
            if slot.astimezone(UTC) > end:
                break
            theirs.append(slot.astimezone(UTC))
        assert parse(text, change.zone).between(start, end, 10_000) == theirs, change


def test_most_expressions_are_ones_that_cronsim_knows() -> None:
    assert len(NOT_CRONSIM) <= 7
    assert sum(is_plain(change) for change in distinct_changes()) > 400
