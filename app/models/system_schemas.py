"""The bodies of what concerns all triggers at once: pausing everything, and following the files now."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from app.models.wire import In, Out

Missed = Literal["skip", "latest", "all"]


class PauseAll(In):
    """Why all triggers are to be paused."""

    note: str | None = Field(default=None, max_length=500, description="shown wherever the pause is")


class ResumeAll(In):
    """What becomes of the slots that were due meanwhile."""

    missed: Missed | None = Field(
        default=None, description="for all triggers alike; without it each trigger's own `catch_up` decides"
    )


class PauseState(Out):
    """Whether any trigger fires."""

    paused: bool = Field(description="no trigger fires, on any node")
    at: datetime | None = Field(description="since when all triggers are paused")
    note: str | None
    paused_here: bool = Field(description="this process was started with --paused, whatever the others do")


class Apply(In):
    """How the triggers are to be brought to the files."""

    prune: bool = Field(default=False, description="delete triggers whose entry has gone from its file")
    dry_run: bool = Field(default=False, description="say what would change, change nothing")


class AppliedTrigger(Out):
    """One trigger that the files change."""

    id: int | None = Field(description="null while it is not there yet")
    pipeline_uuid: str
    name: str
    error: str | None = Field(default=None, description="it is quarantined for this")


class Applied(Out):
    """What following the files has changed, or with dry_run would change."""

    dry_run: bool
    created: list[AppliedTrigger]
    changed: list[AppliedTrigger]
    deactivated: list[AppliedTrigger] = Field(description="their entry has gone from its file")
    deleted: list[AppliedTrigger] = Field(description="by prune")
    quarantined: list[AppliedTrigger] = Field(description="of the files, with a fault; also those unchanged")
