"""The bodies of limits on runs."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from app.models.wire import In, Out

Source = Literal["file", "api", "setting"]


class RunLimit(Out):
    """How many runs of a scope may run at once, and how it stands."""

    scope: str = Field(
        description="`global`, `pipeline:<uuid>`, `schedule:<trigger id>` or `key:<concurrency key>`",
        examples=["pipeline:etl"],
    )
    cap: int = Field(description="runs at once; 0: none may start")
    source: Source | None = Field(
        description="who decides it: a pipeline's or trigger's `file`, the project's `setting`, or the `api`"
    )
    updated_at: datetime | None
    running: int = Field(description="more than the cap when it was lowered meanwhile: they may end")
    waiting: int
    holders: list[int] = Field(description="ids of the runs that hold the places, 20 at most")


class LimitSet(In):
    """A new cap."""

    cap: Annotated[int, Field(ge=0, le=1_000_000, description="runs at once; 0: none may start")]


class LimitChange(Out):
    """One change of a limit."""

    scope: str
    cap: int | None = Field(description="null: the limit was lifted")
    source: Source | None
    at: datetime
