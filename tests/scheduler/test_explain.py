"""The reasons of slots and runs, and intervals in words: pure, a table of cases each."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.models.pipeline import Block, BlockType, Pipeline
from app.models.rows import AttemptRow, BlockRow, RunRow, ScheduleRow, SlotRow
from app.models.states import (
    BlockStatus,
    Cause,
    Outcome,
    RunStatus,
    ScheduleStatus,
    ScheduleType,
    SlotOutcome,
)
from app.pipelines.project import ProjectConfig
from app.pipelines.triggers import TriggerEntry
from app.scheduler import ahead
from app.scheduler.blackouts import Blackout
from app.scheduler.catchup import starts_at
from app.scheduler.explain import Reason, Service, explain_slot
from app.scheduler.explain_run import explain_run
from app.scheduler.timetable import parse
from app.scheduler.words import in_words
from app.store.ledger import Known, Revision

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
MADE = datetime(2026, 1, 1, tzinfo=UTC)
#: 02:30 in Berlin, in summer
SLOT = datetime(2026, 5, 4, 0, 30, tzinfo=UTC)
DAILY = parse("30 2 * * *", "Europe/Berlin")
S = SlotOutcome


def trigger(**given: Any) -> ScheduleRow:
    known: dict[str, Any] = {
        "schedule_interval": "30 2 * * *",
        "timezone": "Europe/Berlin",
        "cursor_at": SLOT - timedelta(days=1),
        "revision": 3,
    }
    return ScheduleRow(
        id=7,
        name="nightly",
        pipeline_uuid="etl",
        schedule_type=given.pop("schedule_type", ScheduleType.TIME),
        status=given.pop("status", ScheduleStatus.ACTIVE),
        created_at=MADE,
        updated_at=MADE,
        **{**known, **given},
    )


def revision(**given: Any) -> Revision:
    known: dict[str, Any] = {
        "revision": 3,
        "at": MADE,
        "schedule_interval": "30 2 * * *",
        "timezone": "Europe/Berlin",
        "status": ScheduleStatus.ACTIVE,
        "cursor_at": MADE,
        "start_time": None,
        "last_enabled_at": None,
        "settings": {},
    }
    return Revision(**{**known, **given})


def record(**given: Any) -> Known:
    known: dict[str, Any] = {
        "schedule": trigger(),
        "deleted_at": None,
        "then": revision(),
        "slot": None,
        "run": None,
        "before": None,
        "after": None,
        "alive": ("node-a",),
    }
    return Known(**{**known, **given})


def slot(outcome: SlotOutcome, reason: str | None = None, **given: Any) -> SlotRow:
    known: dict[str, Any] = {"decided_at": SLOT + timedelta(seconds=0.1), "decided_by": "node-a"}
    known |= {"execution_date": SLOT, "pipeline_schedule_id": 7}
    return SlotRow(outcome=outcome, reason=reason, **{**known, **given})


def a_run(status: RunStatus, **given: Any) -> RunRow:
    known: dict[str, Any] = {"cause": Cause.TICK, "execution_date": SLOT, "created_at": SLOT}
    known |= {"id": 12, "pipeline_uuid": "etl", "pipeline_hash": "h"}
    return RunRow(status=status, **{**known, **given})


CASES: dict[str, tuple[Known, datetime, list[str]]] = {
    "a run": (record(slot=slot(S.RUN, pipeline_run_id=12), run=a_run(RunStatus.COMPLETED)), SLOT, ["run"]),
    "decided late": (
        record(
            slot=slot(S.RUN, pipeline_run_id=12, decided_at=SLOT + timedelta(minutes=4)),
            run=a_run(RunStatus.RUNNING),
        ),
        SLOT,
        ["run", "decided_late"],
    ),
    "cancelled at birth": (
        record(slot=slot(S.RUN, "pipeline_run_limit", pipeline_run_id=12), run=a_run(RunStatus.CANCELLED)),
        SLOT,
        ["pipeline_run_limit", "run"],
    ),
    "overlap": (record(slot=slot(S.SKIPPED, "overlap")), SLOT, ["overlap"]),
    "blackout": (record(slot=slot(S.SKIPPED, "blackout")), SLOT, ["blackout"]),
    "missed": (record(slot=slot(S.MISSED, "catch_up")), SLOT, ["catch_up"]),
    "a stretch": (
        record(slot=slot(S.MISSED, "catch_up", until=SLOT + timedelta(days=90), count=91)),
        SLOT + timedelta(days=3),
        ["catch_up"],
    ),
    "a reason of tomorrow": (record(slot=slot(S.SKIPPED, "moon")), SLOT, ["moon"]),
    "not due": (record(), SLOT + timedelta(minutes=1), ["not_due"]),
    "in the gap": (record(), datetime(2026, 3, 29, 0, 30, tzinfo=UTC), ["not_due", "dst_moved"]),
    "to come": (record(), SLOT + timedelta(days=1), ["not_yet"]),
    "undecided": (record(), SLOT, ["undecided"]),
    "behind the cursor": (record(schedule=trigger(cursor_at=SLOT)), SLOT, ["no_record"]),
    "of an earlier revision": (record(then=revision(revision=2)), SLOT, ["no_record"]),
    "not active then": (record(then=revision(status=ScheduleStatus.INACTIVE)), SLOT, ["inactive"]),
    "neither active nor due": (
        record(then=revision(status=ScheduleStatus.INACTIVE)),
        NOW,
        ["inactive", "not_due"],
    ),
    "before its start": (
        record(schedule=trigger(start_time=SLOT + timedelta(days=9))),
        SLOT,
        ["not_started"],
    ),
    "after its end": (
        record(schedule=trigger(settings={"end_time": "2026-05-01T00:00:00+00:00"})),
        SLOT,
        ["ended"],
    ),
    "by a landing time": (
        record(
            slot=slot(
                S.RUN,
                "expected 412 s from 7 runs",
                pipeline_run_id=12,
                detail={"expected_s": 412, "runs": 7},
            ),
            run=a_run(RunStatus.COMPLETED),
        ),
        SLOT,
        ["run", "landing_time"],
    ),
    "late only by its jitter": (
        record(
            slot=slot(
                S.RUN,
                pipeline_run_id=12,
                detail={"starts_at": (SLOT + timedelta(minutes=4)).isoformat()},
                decided_at=SLOT + timedelta(minutes=4),
            )
        ),
        SLOT,
        ["run"],
    ),
    "not there yet": (record(then=None), SLOT, ["not_created"]),
    "deleted": (record(deleted_at=SLOT - timedelta(days=1)), SLOT, ["deleted"]),
    "deleted later": (record(deleted_at=SLOT + timedelta(days=1)), SLOT, ["undecided"]),
    "quarantined": (record(schedule=trigger(error="no pipeline")), SLOT, ["quarantined"]),
    "by its token": (record(schedule=trigger(schedule_type=ScheduleType.API)), SLOT, ["no_time_trigger"]),
}


@pytest.mark.parametrize(("known", "at", "codes"), CASES.values(), ids=CASES)
def test_the_reasons_of_a_slot(known: Known, at: datetime, codes: list[str]) -> None:
    found = explain_slot(known, known.schedule, DAILY, at, now=NOW, service=Service(alive=known.alive))
    assert [reason.code for reason in found] == codes
    assert all(reason.message.endswith(".") or reason.code == "quarantined" for reason in found)


def test_a_service_that_is_paused_or_gone_is_named() -> None:
    found = explain_slot(record(), trigger(), DAILY, SLOT, now=NOW, service=Service(paused=True))
    assert [reason.code for reason in found] == ["undecided", "scheduler_paused", "no_node"]
    assert found[0].detail["late_s"] == 11.5 * 3600


def test_a_slot_with_a_jitter_is_due_when_its_run_starts() -> None:
    jitter = {"jitter_s": 21_600.0}
    known = record(schedule=trigger(settings=jitter), then=revision(settings=jitter))
    starts = starts_at(known.schedule, DAILY, SLOT)
    assert starts - SLOT > timedelta(minutes=10)

    def told(now: datetime, known: Known = known) -> Reason:
        return explain_slot(known, known.schedule, DAILY, SLOT, now=now, service=Service(alive=("a",)))[0]

    early = told(starts - timedelta(minutes=10))
    assert (early.code, early.detail["in_s"], early.detail["starts_at"]) == ("not_yet", 600, starts)
    assert early.message.startswith("It is due in 10 min (its jitter holds it until 2026-05-04 0")
    late = told(starts + timedelta(minutes=1))
    assert (late.code, late.detail["late_s"]) == ("undecided", 60)
    decided = replace(known, schedule=trigger(settings=jitter, cursor_at=SLOT))
    assert told(starts - timedelta(minutes=10), decided).code == "no_record"


def test_a_moment_without_a_slot_has_its_neighbours_in_the_zone() -> None:
    found, change = explain_slot(
        record(), trigger(), DAILY, datetime(2026, 3, 29, 12, tzinfo=UTC), now=NOW, service=Service()
    )
    assert "before it Sun 2026-03-29 03:00:00 +0200; " not in found.message
    assert "before it Sun 2026-03-29 03:00:00 +0200, after it Mon 2026-03-30 02:30:00 +0200" in found.message
    assert found.detail["timezone"] == "Europe/Berlin"
    assert "2026-03-29 02:30 does not exist in Europe/Berlin" in change.message


def test_a_blackout_to_come_is_told_before_it_is_decided() -> None:
    quiet = Blackout("blackout", "blackout 'freeze': 1 to 9 May", "freeze", 2)
    at = SLOT + timedelta(days=1)
    (found,) = explain_slot(record(), trigger(), DAILY, at, now=NOW, service=Service(), quiet=quiet)
    assert (found.code, found.detail) == ("blackout", {"rule": 2, "name": "freeze"})
    assert found.message == "No run then: blackout 'freeze': 1 to 9 May."


@pytest.mark.parametrize("interval", ["@once", "@always_on"])
def test_intervals_without_dates_say_so(interval: str) -> None:
    found = explain_slot(record(), trigger(), parse(interval), SLOT, now=NOW, service=Service())
    assert [reason.code for reason in found] == [interval[1:]]


def test_an_interval_that_is_none_is_a_quarantine() -> None:
    known = record(schedule=trigger(error="what is that"), then=revision(revision=2))
    found = explain_slot(known, known.schedule, None, SLOT, now=NOW, service=Service())
    assert [reason.code for reason in found] == ["quarantined"]


# Runs

PIPELINE = Pipeline(
    uuid="etl",
    blocks=(
        Block(uuid="load", type=BlockType.DATA_LOADER, file="data_loaders/load.py"),
        Block(uuid="wait", type=BlockType.SENSOR, file="sensors/wait.py"),
        Block(
            uuid="merge", type=BlockType.TRANSFORMER, file="transformers/merge.py", upstream=("load", "wait")
        ),
    ),
)
ERROR = {"type": "ValueError", "message": "no luck\ntoday", "file": "data_loaders/load.py", "line": 4}
B = BlockStatus


def block(uuid: str, status: BlockStatus, **given: Any) -> BlockRow:
    number = [b.uuid for b in PIPELINE.blocks].index(uuid) + 40
    return BlockRow(id=number, pipeline_run_id=12, block_uuid=uuid, status=status, **given)


def codes(run: RunRow, *blocks: BlockRow, waits: tuple[Reason, ...] = ()) -> list[str]:
    return [reason.code for reason in explain_run(run, PIPELINE, blocks, waits, now=NOW)]


def test_a_run_that_waits_says_what_for() -> None:
    run = a_run(RunStatus.INITIAL)
    assert codes(run, waits=(Reason("limit", "full"),)) == ["limit"]
    assert codes(run) == ["waits_for_node"]
    late = replace(run, sla_at=NOW + timedelta(seconds=60))
    found = explain_run(late, PIPELINE, (), (), now=NOW)
    assert [reason.code for reason in found] == ["waits_for_node", "sla_left"]
    assert found[1].detail["left_s"] == 60
    assert codes(replace(late, sla_passed_at=NOW)) == ["waits_for_node", "sla_passed"]


def test_a_run_under_way_tells_its_blocks_running_ones_first() -> None:
    run = a_run(RunStatus.RUNNING, owner="node-a", started_at=SLOT, deadline_at=NOW + timedelta(seconds=9))
    attempt = AttemptRow(attempt=1, epoch=1, node_id="node-a", started_at=NOW - timedelta(seconds=30))
    blocks = (
        block("merge", B.INITIAL),
        block("wait", B.RUNNING, attempt=3, wake_at=NOW + timedelta(seconds=20)),
        block("load", B.RUNNING, attempt=1, attempts=(attempt,)),
    )
    found = explain_run(run, PIPELINE, blocks, (), now=NOW)
    assert [reason.code for reason in found] == [
        "block_runs",
        "sensor_waits",
        "waits_for_upstream",
        "runs_on_node",
        "timeout_left",
    ]
    assert found[0].detail["running_s"] == 30 and "for 30 s" in found[0].message
    assert found[1].detail["left_s"] == 20
    assert found[2].detail["upstream_blocks"] == ["load", "wait"]
    assert found[4].detail["left_s"] == 9


def test_a_retry_a_queue_and_a_takeover_are_told() -> None:
    run = a_run(RunStatus.RUNNING, owner="n", started_at=SLOT, recoveries=2, cancel_requested_at=NOW)
    retry = block("load", B.QUEUED, attempt=1, max_attempts=3, wake_at=NOW + timedelta(seconds=5))
    found = codes(run, retry, block("wait", B.QUEUED))
    assert found == ["is_stopping", "retry_waits", "block_queued", "runs_on_node", "was_taken_over"]


def test_a_failed_run_begins_with_the_block_that_failed_first() -> None:
    run = a_run(RunStatus.FAILED, status_reason="block_failed: load, wait", started_at=SLOT, completed_at=NOW)
    attempt = AttemptRow(
        attempt=2, epoch=1, node_id="n", started_at=SLOT, ended_at=NOW, outcome=Outcome.FAILED, error=ERROR
    )
    first = block(
        "load",
        B.FAILED,
        attempt=2,
        max_attempts=2,
        error=ERROR,
        attempts=(attempt,),
        completed_at=SLOT + timedelta(seconds=1),
    )
    later = block("wait", B.FAILED, status_reason="sensor timed out", completed_at=NOW)
    found = explain_run(run, PIPELINE, (later, first, block("merge", B.UPSTREAM_FAILED)), (), now=NOW)
    assert [reason.code for reason in found] == ["block_failed", "block_failed", "never_started"]
    assert found[0].message == (
        "Block 'load' failed in attempt 2 of 2: ValueError: no luck (data_loaders/load.py:4)."
    )
    assert found[0].detail["hint"] == "runwright runs logs 12 --block load"
    assert found[0].detail["outcome"] == "failed"
    assert found[1].message == "Block 'wait' failed: sensor timed out."
    assert found[2].detail["blocks"] == ["merge"]


@pytest.mark.parametrize(
    ("status", "reason", "code"),
    [
        (RunStatus.CANCELLED, "cancel requested", "cancel_requested"),
        (RunStatus.CANCELLED, "parent cancelled", "parent_cancelled"),
        (RunStatus.CANCELLED, "pipeline_run_limit", "pipeline_run_limit"),
        (RunStatus.CANCELLED, "overlap", "overlap"),
        (RunStatus.FAILED, "timeout", "timeout"),
        (RunStatus.FAILED, "recovery limit", "recovery_limit"),
        (RunStatus.FAILED, "internal_error", "internal_error"),
        (RunStatus.FAILED, "something new", "failed"),
        (RunStatus.CANCELLED, None, "cancelled"),
        (RunStatus.FAILED, "block_failed: gone", "failed"),
    ],
)
def test_every_way_to_end_has_its_first_reason(status: RunStatus, reason: str | None, code: str) -> None:
    run = a_run(status, status_reason=reason, completed_at=NOW)
    stopped = block("load", B.CANCELLED, attempt=1)
    assert codes(run, stopped)[0] == code
    assert codes(run, stopped)[-1] == "stopped"
    told = replace(run, status_detail={"cap": 2})
    assert explain_run(told, PIPELINE, (stopped,), (), now=NOW)[0].detail["cap"] == 2


def test_a_completed_run_says_how_long_and_whether_it_was_late() -> None:
    run = a_run(
        RunStatus.COMPLETED, started_at=NOW - timedelta(seconds=90), completed_at=NOW, passed_sla=True
    )
    found = explain_run(run, PIPELINE, (), (), now=NOW)
    assert [reason.message for reason in found] == ["It completed in 1 min 30 s.", "It has passed its SLA."]
    assert codes(replace(run, started_at=None, passed_sla=False)) == ["completed"]


# Words

WORDS = {
    "@daily": "at 00:00 every day",
    "@weekly": "at 00:00, on Sunday",
    "@hourly": "at minute 0 of every hour",
    "@yearly": "at 00:00, on day 1 of the month in January",
    "@every 90s": "every 90s",
    "*/5 * * * *": "every 5 minutes",
    "*/7 * * * *": "every 7 minutes from minute 0 on",
    "0 */2 * * *": "at minute 0 in every 2nd hour every day",
    "0 6,18 * * *": "at 06:00, 18:00 every day",
    "0,30 9-17 * * 1-5": "at minute 0, 30 in hours 9 to 17, on Monday to Friday",
    "0 0 L * *": "at 00:00, on the last day of the month",
    "0 0 15W * *": "at 00:00, on the weekday nearest to day 15 of the month",
    "0 0 * * L5": "at 00:00, on the last Friday of the month",
    "0 0 13 * fri": "at 00:00, on day 13 of the month and every Friday",
    "0 12 * 1-3 * 30 2027": "at 12:00:30, every day in January to March in 2027",
}


@pytest.mark.parametrize(("interval", "words"), WORDS.items())
def test_an_interval_in_words(interval: str, words: str) -> None:
    parse(interval)
    assert in_words(interval) == words


def test_a_week_begins_where_the_project_says() -> None:
    assert in_words("@weekly", "monday") == "at 00:00, on Monday"


def test_a_look_ahead_ends_after_fifty_years() -> None:
    entry = TriggerEntry(pipeline_uuid="", name="leap", schedule_interval="0 0 29 2 *")
    found = ahead.of_definition(entry, ProjectConfig(Path()), now=NOW, after=NOW, count=200)
    assert [found.items[0].execution_date.year, found.items[-1].execution_date.year] == [2028, 2076]
    ends = replace(entry, settings={"end_time": "2030-01-01T00:00:00+00:00"})
    found = ahead.of_definition(ends, ProjectConfig(Path()), now=NOW, after=NOW, count=200)
    assert [slot.execution_date.year for slot in found.items] == [2028]
