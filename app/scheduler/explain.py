"""Why a trigger did, did not or will start a run at a moment: reasons from its rows and the pure timetable.

The first reason is the one that decides. `code` is stable; `detail` has the facts the message is made of.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from app.models.rows import RunRow, ScheduleRow, SlotRow
from app.models.states import ScheduleStatus, ScheduleType, SlotOutcome
from app.pipelines import trigger_settings
from app.scheduler import catchup
from app.scheduler.blackouts import Blackout
from app.scheduler.clockchanges import marks_between
from app.scheduler.timetable import Timetable
from app.store.ledger import Known

#: A decision this much after its slot is told as a late one.
LATE_S: Final = 2.0
_DAY = timedelta(days=1)
#: Marks of one clock change that an explanation names.
_MARKS: Final = 5
_OUTCOMES: Final = {
    "catch_up": "No service decided it in time, and `catch_up` of the trigger lets it go",
    "error": "Its pipeline was missing or invalid when it was due",
    "edited": "It was due and undecided when the trigger was edited, and an edit never fires the past",
    "paused": "It was due while the trigger was paused",
    "overlap": "Another run of the trigger was not over (skip_if_previous_running)",
    "calendar": "Its day is none of the days on which the trigger runs",
    "blackout": "It lay in a blackout of the trigger",
    "pipeline_run_limit": "The trigger had as many runs as pipeline_run_limit allows",
}


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason: a code for programs, a sentence for people, and the facts behind it."""

    code: str
    message: str
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """How the scheduler is: whether all triggers are paused, and how late the longest due one is."""

    paused: bool = False
    lag_s: float = 0.0
    alive: tuple[str, ...] = ()


def explain_slot(
    known: Known,
    then: ScheduleRow,
    table: Timetable | None,
    at: datetime,
    *,
    now: datetime,
    service: Service,
    quiet: Blackout | None = None,
) -> list[Reason]:
    """The reasons, the deciding one first.

    `then` is the trigger as it was at `at`, `table` its timetable, None when its interval cannot be read; `quiet`
    is the blackout that covers the moment.
    """
    if known.slot is not None:
        return list(_decided(known.slot, known.run))
    reasons = [*_standing(known, then, table, at)]
    if table is None or then.schedule_type is not ScheduleType.TIME:
        return reasons
    if table.kind != "calendar":
        return [*reasons, _without_dates(table)]
    if table.before(at) != at:
        return [*reasons, _not_due(table, at), *_clock_changes(table, at)]
    if quiet is not None:
        rule = {"rule": quiet.rule, "name": quiet.name}
        reasons.append(Reason(quiet.kind, f"No run then: {quiet.text}.", rule))
    starts = at if table.lands else catchup.starts_at(then, table, at)
    return reasons or [*_undecided(known, at, starts, now, service), *_clock_changes(table, at)]


def _decided(slot: SlotRow, run: RunRow | None) -> Iterator[Reason]:
    facts: dict[str, Any] = {"outcome": slot.outcome, **(slot.detail or {})}
    if slot.until is not None:
        facts |= {"from": slot.execution_date, "until": slot.until, "count": slot.count}
        more = f"{slot.count} slots like it"
        yield Reason(slot.reason or str(slot.outcome), _sentence(slot, more), facts)
        return
    if slot.outcome is not SlotOutcome.RUN:
        yield Reason(slot.reason or str(slot.outcome), _sentence(slot), facts)
    else:
        yield from _run_of(slot, run, facts)
    late = (slot.decided_at - _starts_at(slot)) / timedelta(seconds=1)
    if late > LATE_S:
        text = f"It was decided {span(_starts_at(slot), slot.decided_at)} after its time."
        told = {"decided_at": slot.decided_at, "node": slot.decided_by, "late_s": round(late, 3)}
        yield Reason("decided_late", text, told)


def _run_of(slot: SlotRow, run: RunRow | None, facts: dict[str, Any]) -> Iterator[Reason]:
    """The run of a slot: one that was never to start has its reason first."""
    facts = {**facts, "pipeline_run_id": slot.pipeline_run_id, "status": run.status if run else None}
    if slot.reason in _OUTCOMES:
        yield Reason(slot.reason, _sentence(slot), facts)
    state = f" and is {run.status}" if run else ""
    yield Reason("run", f"Run {slot.pipeline_run_id} was made for it{state}.", facts)
    if "expected_s" in facts:
        text = f"The slot is a landing time; how early its run starts: {slot.reason}."
        yield Reason("landing_time", text, dict(slot.detail or {}))


def _starts_at(slot: SlotRow) -> datetime:
    """When its run had to start: with a jitter later than the slot."""
    told = (slot.detail or {}).get("starts_at")
    return datetime.fromisoformat(told) if isinstance(told, str) else slot.execution_date


def _sentence(slot: SlotRow, more: str = "") -> str:
    reason = slot.reason or ""
    said = _OUTCOMES.get(reason, f"Its outcome is {slot.outcome}{reason and f', {reason}'}")
    end = {SlotOutcome.SKIPPED: "it was skipped", SlotOutcome.MISSED: "it is missed"}.get(slot.outcome)
    tail = f": {end}" if end else ": its run ended at birth"
    text = (slot.detail or {}).get("text")
    return f"{said}{f' ({text})' if text else ''}{tail}{more and f', as one of {more}'}."


def _standing(known: Known, then: ScheduleRow, table: Timetable | None, at: datetime) -> Iterator[Reason]:
    """What keeps the trigger from firing at all at that moment."""
    if known.deleted_at is not None and at >= known.deleted_at:
        yield Reason("deleted", "The trigger had been deleted by then.", {"deleted_at": known.deleted_at})
    if known.then is None:
        text = f"The trigger did not exist yet: made {stamp(then.created_at)}."
        yield Reason("not_created", text, {"created_at": then.created_at})
        return
    if then.schedule_type is not ScheduleType.TIME:
        text = f"The trigger is of type {then.schedule_type}: no clock starts it, somebody fires it."
        yield Reason("no_time_trigger", text, {"schedule_type": then.schedule_type})
        return
    if then.error is not None and (table is None or known.then.revision == then.revision):
        text = f"The trigger is quarantined: {then.error}"
        yield Reason("quarantined", text, {"error": then.error, "revision": then.revision})
    if known.then.status is ScheduleStatus.INACTIVE:
        since = {"inactive_since": known.then.at, "revision": known.then.revision}
        yield Reason("inactive", f"The trigger was not active since {stamp(known.then.at)}.", since)
    yield from _bounds(then, at)


def _bounds(then: ScheduleRow, at: datetime) -> Iterator[Reason]:
    if then.start_time is not None and at < then.start_time:
        text = f"Its start_time is {stamp(then.start_time)}."
        yield Reason("not_started", text, {"start_time": then.start_time})
    end = trigger_settings.ends(then.settings)
    if end is not None and at > end:
        yield Reason("ended", f"Its end_time was {stamp(end)}.", {"end_time": end})


def _without_dates(table: Timetable) -> Reason:
    if table.kind == "once":
        return Reason("once", "@once has one slot: its start_time, or when it became active.")
    return Reason("always_on", "@always_on has no dates: a run begins when the one before has ended.")


def _not_due(table: Timetable, at: datetime) -> Reason:
    """No slot is there; where the clocks change, what the wall showed."""
    local = at.astimezone(table.zone)
    before, after = table.before(at), table.after(at)
    facts: dict[str, Any] = {
        "interval": table.interval,
        "timezone": table.zone.key,
        "previous": before,
        "next": after,
    }
    said = f"'{table.interval}' in {table.zone.key} has no slot at {local:%a %Y-%m-%d %H:%M:%S %z}"
    near = ", ".join(
        f"{word} {slot.astimezone(table.zone):%a %Y-%m-%d %H:%M:%S %z}"
        for word, slot in (("before it", before), ("after it", after))
        if slot is not None
    )
    return Reason("not_due", f"{said}{near and f'; {near}'}.", facts)


def _clock_changes(table: Timetable, at: datetime) -> Iterator[Reason]:
    """What a change of the clocks within a day of the moment does to the slots."""
    for mark in marks_between(table, at - _DAY, at + _DAY, _MARKS):
        facts = {"wall": mark.wall.isoformat(), "change": mark.change, "slot": mark.slot}
        yield Reason(mark.code, f"{mark.text}.", facts)


def _undecided(
    known: Known, at: datetime, starts: datetime, now: datetime, service: Service
) -> Iterator[Reason]:
    """It is a slot of an active trigger whose run starts at `starts`, and has no row."""
    schedule, then = known.schedule, known.then
    ahead = then is not None and then.revision == schedule.revision and _is_ahead(schedule, at)
    if at > now or (starts > now and ahead):
        when: dict[str, Any] = {"execution_date": at, "in_s": round((starts - now) / timedelta(seconds=1), 3)}
        held = ""
        if starts != at:
            when["starts_at"], held = starts, f" (its jitter holds it until {stamp(starts)})"
        yield Reason("not_yet", f"It is due in {span(now, starts)}{held}; nothing has been decided.", when)
    elif ahead:
        late = round((now - starts) / timedelta(seconds=1), 3)
        facts = {"late_s": late, "scheduler_lag_s": service.lag_s, "nodes": list(service.alive)}
        yield Reason("undecided", f"It is due since {span(starts, now)} and not decided yet.", facts)
    else:
        text = "It has no row: the trigger's looking on began after it, or its row was pruned."
        yield Reason("no_record", text, {"cursor_at": schedule.cursor_at})
        return
    if service.paused:
        yield Reason("scheduler_paused", "All triggers are paused: `runwright resume-all` lets them go on.")
    if not service.alive:
        yield Reason("no_node", "No node of the service is alive.")


def _is_ahead(schedule: ScheduleRow, at: datetime) -> bool:
    return schedule.cursor_at is None or schedule.cursor_at < at


def stamp(at: datetime) -> str:
    """A time in UTC for a sentence."""
    return f"{at:%Y-%m-%d %H:%M:%SZ}"


def span(since: datetime | None, until: datetime | None) -> str:
    """The time between two moments in words; empty when one is unknown.

    >>> from datetime import UTC
    >>> span(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 1, 5, 9, tzinfo=UTC))
    '1 h 5 min'
    """
    if since is None or until is None:
        return ""
    left = (until - since) / timedelta(seconds=1)
    parts: list[str] = []
    for name, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if left >= size:
            parts.append(f"{int(left // size)} {name}")
            left %= size
    if not parts:
        return f"{left:.3g} s"
    seconds = f"{int(left)} s"
    return " ".join([*parts, seconds][:2] if len(parts) < 2 and int(left) else parts[:2])
