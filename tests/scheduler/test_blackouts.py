"""What a blackout covers, to the second and in the trigger's zone; what it says; how a bad rule is refused."""

import re
import textwrap
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from app.errors import InvalidInput
from app.pipelines import yamlfile
from app.scheduler import blackouts

BERLIN = "Europe/Berlin"


def local(text: str, zone: str = BERLIN, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)


def covers(rule: object, text: str, zone: str = BERLIN) -> str | None:
    found = blackouts.parse([rule], zone).covers(local(text, zone))
    return found and found.text


@pytest.mark.parametrize(
    ("rule", "inside", "outside"),
    [
        (
            {"from": "2026-12-24", "to": "2026-12-26"},
            ["2026-12-24T00:00", "2026-12-26T23:59:59"],
            ["2026-12-23T23:59:59", "2026-12-27T00:00"],
        ),
        (
            {"from": date(2026, 12, 24), "to": date(2026, 12, 24)},
            ["2026-12-24T12:00"],
            ["2026-12-25T00:00"],
        ),
        (
            {"from": "2026-12-24T18:00", "to": "2026-12-25T06:00"},
            ["2026-12-24T18:00", "2026-12-25T05:59:59"],
            ["2026-12-24T17:59:59", "2026-12-25T06:00"],
        ),
        ({"from": "2026-12-24T18:00Z", "to": "2026-12-24"}, ["2026-12-24T19:00"], ["2026-12-24T18:59:59"]),
        (
            {"weekdays": ["Sat", "sunday"]},
            ["2026-11-28T00:00", "2026-11-29T23:59:59"],
            ["2026-11-27T23:59:59", "2026-11-30T00:00"],
        ),
        ({"weekdays": "thursday"}, ["2026-11-26T12:00"], ["2026-11-27T00:00"]),
        (
            {"from": "08:00", "to": "18:00"},
            ["2026-11-26T08:00", "2026-11-26T17:59:59"],
            ["2026-11-26T07:59:59", "2026-11-26T18:00"],
        ),
        ({"from": "18:00", "to": "24:00"}, ["2026-11-26T23:59:59"], ["2026-11-27T00:00"]),
        (
            {"from": "22:00", "to": "06:00"},
            ["2026-11-26T22:00", "2026-11-26T00:00", "2026-11-27T05:59:59"],
            ["2026-11-26T06:00", "2026-11-26T21:59:59"],
        ),
        # a window that passes midnight belongs to the day on which it began
        (
            {"weekdays": ["sat"], "from": "22:00", "to": "06:00"},
            ["2026-11-28T22:00", "2026-11-29T05:59"],
            ["2026-11-28T05:00", "2026-11-29T22:00"],
        ),
        (
            {"holidays": "DE", "subdivision": "BY"},
            ["2026-11-01T00:00", "2026-12-25T23:59:59"],
            ["2026-11-02T00:00", "2026-12-24T23:59:59"],
        ),
        ({"holidays": "XNYS"}, ["2026-11-26T12:00"], ["2026-11-27T12:00"]),
    ],
)
def test_a_rule_covers_from_its_first_to_its_last_second(
    rule: object, inside: list[str], outside: list[str]
) -> None:
    assert [text for text in inside if covers(rule, text) is None] == []
    assert [text for text in outside if covers(rule, text) is not None] == []


def test_days_are_those_of_the_triggers_zone() -> None:
    slot = datetime(2026, 11, 27, 15, tzinfo=UTC)
    sunday = [{"weekdays": ["sat"]}]
    assert blackouts.parse(sunday, "Asia/Tokyo").covers(slot) is not None
    assert blackouts.parse(sunday, "UTC").covers(slot) is None


def test_a_repeated_hour_is_covered_both_times() -> None:
    quiet = blackouts.parse([{"from": "2026-10-25T02:00", "to": "2026-10-25T02:30"}], BERLIN)
    assert quiet.covers(local("2026-10-25T02:10", fold=0))
    assert quiet.covers(local("2026-10-25T02:10", fold=1))
    assert quiet.covers(local("2026-10-25T02:40", fold=1)) is None


def test_the_reason_names_the_rule() -> None:
    value = [
        {"name": "stocktaking", "from": "2026-12-30", "to": "2026-12-31"},
        {"holidays": "DE", "subdivision": "BY"},
        {"weekdays": ["sun", "sat"]},
    ]
    quiet = blackouts.parse(value, BERLIN)
    texts = {
        day: quiet.covers(local(day)) for day in ("2026-12-30", "2026-12-25", "2026-11-28", "2026-11-27")
    }
    assert [(found.kind, found.text, found.rule) if found else None for found in texts.values()] == [
        ("blackout", "blackout 'stocktaking': 2026-12-30 to 2026-12-31", 0),
        ("calendar", "calendar: Christmas Day, 2026-12-25 (DE-BY)", 1),
        ("blackout", "blackout: sat, sun", 2),
        None,
    ]


@pytest.mark.parametrize("value", [None, [], ()])
def test_no_rules_cover_nothing(value: object) -> None:
    quiet = blackouts.parse(value, BERLIN)
    assert quiet.covers(local("2026-12-25")) is None


def test_every_fault_has_its_place() -> None:
    value = [
        {"weekdays": ["sun"]},
        {"weekdays": ["sat", 7], "unti/l": 1},
        "x",
        {"from": "2026-12-24", "to": 5},
    ]
    with pytest.raises(InvalidInput) as caught:
        blackouts.parse(value, BERLIN)
    assert [error.pointer for error in caught.value.errors] == [
        "/settings/blackouts/1/unti~1l",
        "/settings/blackouts/1/weekdays/1",
        "/settings/blackouts/2",
        "/settings/blackouts/3/to",
    ]
    assert caught.value.detail.startswith("/settings/blackouts/1/unti~1l: unknown key")
    assert caught.value.detail.endswith("(and 3 more)")


def test_the_country_that_yaml_reads_as_false_gets_a_hint() -> None:
    with pytest.raises(InvalidInput, match='"NO"'):
        blackouts.parse([{"holidays": False}], BERLIN)
    assert covers({"holidays": "NO"}, "2026-05-17") == "calendar: Constitution Day, 2026-05-17 (NO)"


def test_a_year_of_hours_is_covered_as_the_days_say() -> None:
    quiet = blackouts.parse([{"weekdays": ["sat"]}, {"holidays": "DE"}], BERLIN)
    hours = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=n) for n in range(8759)]
    days = {hour.astimezone(ZoneInfo(BERLIN)).date() for hour in hours if quiet.covers(hour)}
    assert len(days) == 52 + 9 - 2  # nine holidays of all Germany, two of them on a Saturday in 2026


def written(text: str) -> object:
    """The setting as a trigger of a file has it."""
    return yamlfile.plain(yamlfile.parse(text, "triggers.yaml"))


def test_the_example_in_the_guide_means_what_it_says() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "triggers.md").read_text(encoding="utf-8")
    block = re.search(r"```yaml\n(  settings:\n    blackouts:.*?)```", guide, re.DOTALL)
    assert block is not None
    found = written(textwrap.dedent(block[1]))
    assert isinstance(found, dict)
    quiet = blackouts.parse(found["settings"]["blackouts"], BERLIN)
    assert len(quiet.rules) == 5
    covered = {
        day: quiet.covers(local(day)) for day in ("2026-12-31T23:59", "2026-12-24T18:00", "2026-12-05")
    }
    assert [found and found.rule for found in covered.values()] == [0, 1, 2]
    assert quiet.covers(local("2026-11-27T22:30")).rule == 3
    assert quiet.covers(local("2026-06-04")).text == "calendar: Corpus Christi, 2026-06-04 (DE-BY)"


def test_a_time_without_quotes_is_a_number_to_yaml_and_gets_a_hint() -> None:
    with pytest.raises(InvalidInput, match="in quotes"):
        blackouts.parse([written("{from: 22:00, to: 23:00}")], BERLIN)
