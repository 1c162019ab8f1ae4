"""What a preview shows: the slots of the timetable, when their runs start, and what is special about them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from app.models.rows import ScheduleRow
from app.models.states import ScheduleStatus, ScheduleType
from app.scheduler.catchup import starts_at
from app.scheduler.landing import Expected
from app.scheduler.preview import Upcoming, marks, preview
from app.scheduler.tables_of import table_of
from app.scheduler.timetable import InvalidInterval


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


NOW = at("2026-03-27 12:00")


def trigger(interval: str, zone: str | None = "Europe/Berlin", **changes: Any) -> ScheduleRow:
    return ScheduleRow(
        id=1,
        name="t",
        pipeline_uuid="p",
        schedule_type=ScheduleType.TIME,
        status=ScheduleStatus.INACTIVE,
        created_at=at("2026-01-01"),
        updated_at=at("2026-01-01"),
        schedule_interval=interval,
        timezone=zone,
        **changes,
    )


def shown(found: list[Upcoming]) -> list[tuple[str, str | None, list[str]]]:
    return [
        (
            f"{slot.execution_date:%m-%d %H:%M%z}",
            slot.starts_at and f"{slot.starts_at:%m-%d %H:%M}",
            [note.code for note in slot.notes],
        )
        for slot in found
    ]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {},
            [
                ("03-28 02:30+0100", "03-28 02:30", []),
                ("03-29 03:00+0200", "03-29 03:00", ["dst_moved"]),
                ("03-30 02:30+0200", "03-30 02:30", []),
            ],
        ),
        (
            {"dst_gap": "skip"},
            [
                ("03-28 02:30+0100", "03-28 02:30", []),
                ("03-30 02:30+0200", "03-30 02:30", ["dst_dropped"]),
                ("03-31 02:30+0200", "03-31 02:30", []),
            ],
        ),
        (
            {"blackouts": [{"weekdays": ["sat"]}, {"from": "2026-03-30", "to": "2026-03-30"}]},
            [
                ("03-28 02:30+0100", None, ["blackout"]),
                ("03-29 03:00+0200", "03-29 03:00", ["dst_moved"]),
                ("03-30 02:30+0200", None, ["blackout"]),
            ],
        ),
    ],
)
def test_a_slot_shows_what_a_rule_does_to_it(settings: Mapping[str, Any], expected: list[Any]) -> None:
    assert shown(preview(trigger("30 2 * * *", settings=settings), now=NOW, count=3)) == expected


def test_a_repeated_time_is_told_by_either_rule() -> None:
    night = at("2026-10-24 12:00")
    once = preview(trigger("30 2 * * *"), now=night, count=2)
    both = preview(trigger("30 2 * * *", settings={"dst_overlap": "both"}), now=night, count=2)
    assert shown(once) == [
        ("10-25 02:30+0200", "10-25 02:30", ["dst_dropped"]),
        ("10-26 02:30+0100", "10-26 02:30", []),
    ]
    assert shown(both) == [
        ("10-25 02:30+0200", "10-25 02:30", []),
        ("10-25 02:30+0100", "10-25 02:30", ["dst_doubled"]),
    ]
    assert once[0].notes[0].text == (
        "2026-10-25 02:30 comes twice in Europe/Berlin: "
        "the first, at +02:00, has the slot, the second, at +01:00, has none"
    )


def test_a_landing_run_starts_before_its_slot_and_never_before_now() -> None:
    lands = trigger("@daily", start_time=at("2026-01-01 12:05"), settings={"landing_time_enabled": True})
    found = preview(lands, now=NOW, count=2, expected=Expected(600, 7))
    assert [slot.starts_at for slot in found] == [NOW, at("2026-03-28 11:55")]
    assert [slot.execution_date for slot in found] == [at("2026-03-27 12:05"), at("2026-03-28 12:05")]
    decided = trigger(
        "@daily",
        start_time=at("2026-01-01 12:05"),
        settings={"landing_time_enabled": True},
        cursor_at=at("2026-03-27 12:05"),
    )
    assert preview(decided, now=NOW, count=1)[0].execution_date == at("2026-03-28 12:05")


@pytest.mark.parametrize(
    ("row", "dates"),
    [
        (trigger("@once", start_time=at("2026-05-01")), ["2026-05-01"]),
        (trigger("@once", start_time=at("2026-05-01"), cursor_at=at("2026-05-01")), []),
        (trigger("@once"), ["2026-01-01"]),
        (trigger("@always_on"), []),
        (trigger("@daily", None, start_time=at("2026-05-01")), ["2026-05-01", "2026-05-02", "2026-05-03"]),
        (
            trigger("@daily", None, settings={"end_time": "2026-03-29T00:00:00+00:00"}),
            ["2026-03-28", "2026-03-29"],
        ),
        (trigger("@every 90s", None), ["2026-03-27 12:01:30", "2026-03-27 12:03", "2026-03-27 12:04:30"]),
        (trigger("0 0 1 1 * 0 2020"), []),
    ],
)
def test_a_preview_ends_where_the_slots_end(row: ScheduleRow, dates: list[str]) -> None:
    assert [slot.execution_date for slot in preview(row, now=NOW, count=3)] == [at(date) for date in dates]


def test_the_projects_week_and_utc_hold_for_a_trigger_without_its_own() -> None:
    found = preview(trigger("@weekly", None), now=NOW, count=1, week_start="monday")
    assert found[0].execution_date.isoformat() == "2026-03-30T00:00:00+00:00"


@pytest.mark.parametrize(
    ("asked", "cursor", "first"),
    [
        ("2026-05-04 00:10", "2026-05-03", "2026-05-04"),
        ("2026-05-04 00:10", "2026-05-04", "2026-05-05"),
        ("2026-05-04 00:10", None, "2026-05-05"),
        ("2026-05-04 06:00", "2026-05-03", "2026-05-05"),
    ],
)
def test_a_slot_whose_jitter_has_not_passed_is_still_to_come(
    asked: str, cursor: str | None, first: str
) -> None:
    row = trigger("@daily", None, settings={"jitter_s": 21_600.0}, cursor_at=cursor and at(cursor))
    table = table_of(row, week_start="sunday")
    found = preview(row, now=at(asked), count=2)
    assert found[0].execution_date == at(first)
    assert [slot.starts_at for slot in found] == [
        starts_at(row, table, slot.execution_date) for slot in found
    ]


@pytest.mark.parametrize(
    ("interval", "zone", "settings", "expected"),
    [
        ("30 2 * * *", "Europe/Berlin", {}, ["dst_moved 03-29 02:30", "dst_dropped 10-25 02:30"]),
        (
            "30 2 * * *",
            "Europe/Berlin",
            {"dst_gap": "skip", "dst_overlap": "both"},
            ["dst_dropped 03-29 02:30", "dst_doubled 10-25 02:30"],
        ),
        ("30 3 * * *", "Europe/Berlin", {}, []),
        ("0 2 * * *", "UTC", {}, []),
        ("*/5 * * * *", "Europe/Berlin", {}, []),
        ("0 */2 * * *", "Europe/Berlin", {}, ["dst_dropped 03-29 02:00", "dst_doubled 10-25 02:00"]),
        ("0 * * * *", "Australia/Lord_Howe", {}, ["dst_dropped 10-04 02:00"]),
        ("@daily", "Africa/Cairo", {}, ["dst_moved 04-24 00:00"]),
        ("@every 1h", "Europe/Berlin", {}, []),
        ("@once", "Europe/Berlin", {}, []),
    ],
)
def test_a_year_of_marks(interval: str, zone: str, settings: Mapping[str, Any], expected: list[str]) -> None:
    found = marks(trigger(interval, zone, settings=settings), at("2026-01-01"), 365)
    assert [f"{mark.code} {mark.wall:%m-%d %H:%M}" for mark in found] == expected


def test_the_marks_are_the_difference_that_the_rules_make() -> None:
    """Slots under one rule less slots under the other are what the marks of either tell."""
    begin, end = at("2026-01-01"), at("2027-01-01")
    for interval in ("0,30 1,2,3 * * *", "15 0 * * *", "45 23 * * 6,0"):
        for zone in ("Europe/Berlin", "America/Havana", "Australia/Lord_Howe", "America/St_Johns"):
            few = trigger(interval, zone, settings={"dst_gap": "skip"})
            many = trigger(interval, zone, settings={"dst_gap": "skip", "dst_overlap": "both"})
            slots = [
                set(table_of(row, week_start="sunday").between(begin, end, 9_000)) for row in (few, many)
            ]
            told = [mark for mark in marks(many, begin, 365) if mark.code == "dst_doubled"]
            assert slots[1] - slots[0] == {mark.slot.astimezone(UTC) for mark in told}
            assert slots[0] < slots[1] or not told


def test_a_long_list_of_marks_is_cut() -> None:
    assert len(marks(trigger("* 2 * * * *"), at("2026-01-01"), 365, limit=50)) == 50


def test_what_cannot_be_read_is_refused() -> None:
    with pytest.raises(InvalidInterval):
        preview(trigger("61 * * * *"), now=NOW, count=1)
