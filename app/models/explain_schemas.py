"""The bodies of previews and explanations: what will happen, and why something did or did not happen."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import Field, JsonValue

from app.models.settings_schema import SETTINGS_SCHEMA
from app.models.states import RunStatus, SlotOutcome
from app.models.system_schemas import Missed
from app.models.trigger_schemas import Slot
from app.models.wire import In, Out, Time


class Reason(Out):
    """One reason. `code` is for programs and stable, `message` for people; `detail` has the facts behind it."""

    code: str = Field(examples=["overlap"])
    message: str
    detail: Mapping[str, Any] = Field(description="the facts: ids, times, limits; keys depend on the code")


class RunExplanation(Out):
    """Why a run waits, what it does, or why it ended as it did. The first reason decides."""

    pipeline_run_id: int
    status: RunStatus
    summary: str = Field(description="the first reason, as a sentence")
    reasons: list[Reason]


class NearSlot(Out):
    """A slot beside the moment that was asked about, with what became of it so far."""

    execution_date: datetime
    starts_at: datetime | None = Field(
        description="when its run is to begin: later with a jitter; null in a blackout, and for a landing time"
    )
    notes: list[str] = Field(description="what a change of the clocks does to it, or the blackout it lies in")
    outcome: SlotOutcome | None
    reason: str | None
    pipeline_run_id: int | None


class SlotExplanation(Out):
    """Why a trigger did, did not or will start a run at a moment. The first reason decides."""

    pipeline_schedule_id: int
    at: datetime
    summary: str = Field(description="the first reason, as a sentence")
    reasons: list[Reason]
    slot: Slot | None = Field(description="the row of the ledger that decided it")
    previous: NearSlot | None = Field(description="the nearest slot before")
    next: NearSlot | None = Field(description="the nearest slot after")


class PreviewAsked(In):
    """When a trigger would fire that is not there yet. The fields are those of a trigger of type time."""

    schedule_interval: str = Field(min_length=1, max_length=255, examples=["0 6 * * mon-fri"])
    timezone: str | None = Field(
        default=None, max_length=100, description="IANA name; the project's without it"
    )
    start_time: Time | None = Field(default=None, description="no slot before it")
    settings: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="as a trigger has them; those about time count here",
        json_schema_extra=SETTINGS_SCHEMA,
    )
    count: int = Field(default=10, ge=1, le=200, description="how many execution dates")
    after: Time | None = Field(default=None, description="look from then on; from now without it")


class SlotNote(Out):
    """What is special about a slot."""

    code: str = Field(description="dst_moved, dst_dropped, dst_doubled, blackout or calendar")
    text: str


class UpcomingSlot(Out):
    """A slot to come."""

    execution_date: datetime = Field(description="in the trigger's zone")
    starts_at: datetime | None = Field(
        description="when its run starts: earlier for a landing time, later with a jitter; null: no run"
    )
    notes: list[SlotNote]


class UpcomingRun(UpcomingSlot):
    """A slot to come of one trigger."""

    pipeline_schedule_id: int
    pipeline_uuid: str
    name: str


class Upcoming(Out):
    """Slots to come, in the order of time."""

    items: list[UpcomingRun]


class ClockChange(Out):
    """A time of day that a change of the clocks skips or repeats, and what becomes of its slot."""

    code: Literal["dst_moved", "dst_dropped", "dst_doubled"]
    wall: str = Field(description="what the clock on the wall shows", examples=["2027-03-28T02:30:00"])
    change: datetime = Field(description="when the clocks are changed")
    slot: datetime | None = Field(description="where the slot is now; null: there is none")
    text: str


class SchedulePreview(Out):
    """When a definition fires."""

    in_words: str = Field(examples=["at 06:00, on Monday to Friday"])
    timezone: str
    items: list[UpcomingSlot]
    clock_changes: list[ClockChange] = Field(description="within a year, the first 100 of them")


class MissedChoice(Out):
    """What one answer would do with the slots that were missed."""

    runs: int
    dropped: int


class MissedSlots(Out):
    """What was due while a trigger was paused, and what each `missed` of a resume would do with it."""

    count: int = Field(description="exact up to 10,000, then `capped`")
    first: datetime | None
    last: datetime | None
    capped: bool
    choices: Mapping[Missed, MissedChoice]


class ScheduleResume(In):
    """How a trigger is to go on."""

    missed: Missed | None = Field(
        default=None, description="slots that were due meanwhile: none runs (skip), the latest, or all"
    )
