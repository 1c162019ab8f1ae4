"""Slots around the clock changes of the world, against somebody who looks at the clock every minute.

A tenth of the changes here; all of them, and every zone, by `make fuzz`.
"""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from app.scheduler.timetable import parse
from tests.scheduler.clock_oracle import (
    EXPRESSIONS,
    MINUTE,
    POLICIES,
    Change,
    Expression,
    distinct_changes,
    due,
    due_of,
    minutes,
)


def differences(change: Change, texts: tuple[str, ...] = EXPRESSIONS) -> list[tuple[str, ...]]:
    """The expressions and policies whose slots are not those of the oracle."""
    looks = minutes(change)
    start, end = looks[0][0] + timedelta(hours=4), looks[-1][0]
    found: list[tuple[str, ...]] = []
    for text in texts:
        expression = Expression(text)
        named = [expression.names(wall) for _instant, wall in looks]
        for gap, overlap in POLICIES if expression.fixed else POLICIES[::3]:
            theirs = [t for t in due_of(expression, looks, named, gap, overlap) if t >= start]
            table = parse(text, change.zone, dst_gap=gap, dst_overlap=overlap)
            if table.between(start - MINUTE, end, 10_000) != theirs:
                found.append((change.zone, f"{change.at:%Y-%m-%d}", text, gap, overlap))
    return found


def test_there_are_enough_changes_and_expressions() -> None:
    assert len(distinct_changes()) > 500
    assert len(set(EXPRESSIONS)) >= 40
    assert {Expression(text).fixed for text in EXPRESSIONS} == {True, False}


@pytest.mark.parametrize("part", range(10))
def test_a_tenth_of_the_changes_has_the_slots_of_the_oracle(part: int) -> None:
    for change in distinct_changes()[part * 10 :: 100]:
        assert differences(change) == []


def test_the_oracle_itself_knows_the_night_in_berlin() -> None:
    spring = minutes(Change("Europe/Berlin", datetime(2026, 3, 29, 1, tzinfo=UTC)))
    autumn = minutes(Change("Europe/Berlin", datetime(2026, 10, 25, 1, tzinfo=UTC)))
    half_past_two = Expression("30 2 * * *")

    def shown(looks: list[tuple[datetime, datetime]], gap: str, overlap: str) -> list[str]:
        return [f"{instant:%d %H:%M}" for instant in due(half_past_two, looks, gap, overlap)]

    assert shown(spring, "next", "first") == ["28 01:30", "29 01:00", "30 00:30"]
    assert shown(spring, "skip", "first") == ["28 01:30", "30 00:30"]
    assert shown(autumn, "next", "first") == ["24 00:30", "25 00:30", "26 01:30"]
    assert shown(autumn, "next", "both") == ["24 00:30", "25 00:30", "25 01:30", "26 01:30"]


@pytest.mark.parametrize("text", ["* * * * *", "30 2 * * *", "0,15,30,45 0,1,2,3 * * *", "@daily"])
@pytest.mark.parametrize(("gap", "overlap"), POLICIES)
def test_upwards_and_downwards_are_one_sequence_across_a_change(text: str, gap: str, overlap: str) -> None:
    for change in distinct_changes()[7::90]:
        table = parse(text, change.zone, dst_gap=gap, dst_overlap=overlap)
        slots = table.between(change.at - timedelta(hours=4), change.at + timedelta(hours=30), 10_000)
        assert slots == sorted(set(slots))
        for earlier, later in pairwise(slots):
            assert table.before(later - timedelta(microseconds=1)) == earlier
            assert table.interval_of(earlier)[:2] == (earlier, later)
