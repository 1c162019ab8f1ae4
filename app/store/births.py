"""What a new run becomes when its trigger or pipeline is full: decided under the scope's lock, by a pure rule."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from sqlalchemy import Connection

from app.models.rows import RunRow
from app.store import ownership
from app.store.scopes import Live, live, lock_scopes

if TYPE_CHECKING:
    from app.store.launch import NewRun

#: The reason of a run that made room for a newer one of its trigger.
REPLACED: Final = "replaced"
#: Live runs of a scope that a rule is shown beyond its cap: what is too much by more ends with the next birth.
_MORE: Final = 1000


@dataclass(frozen=True, slots=True)
class Birth:
    """What a due slot or a request becomes: a run, a run cancelled at birth, or no run at all."""

    fate: Literal["run", "cancelled", "skipped"]
    reason: str | None = None
    #: which limit, its cap, who holds the places
    detail: Mapping[str, Any] | None = None
    #: older runs that end for this one
    replaces: tuple[int, ...] = ()


#: (scope -> cap, scope -> its runs that wait or run, oldest first) -> what a new run becomes
Judge = Callable[[Mapping[str, int], Mapping[str, Sequence[Live]]], Birth]


@dataclass(frozen=True, slots=True)
class Judged:
    """That a run is judged at its birth: by what rule, and what it looks at."""

    scopes: tuple[str, ...]
    judge: Judge = field(compare=False)


def lock(tx: Connection, runs: Iterable["NewRun"]) -> dict[str, int]:
    """Lock, all at once, what these runs are judged by; the caps. What is counted after stays true until the end."""
    return lock_scopes(tx, {scope for run in runs if run.judged for scope in run.judged.scopes})


def judge(tx: Connection, run: "NewRun", caps: Mapping[str, int]) -> Birth:
    """What a run becomes; `caps` are those of :func:`lock`."""
    if run.judged is None:
        return Birth("run")
    found = {scope: live(tx, scope, limit=caps.get(scope, 0) + _MORE) for scope in run.judged.scopes}
    return run.judged.judge(caps, found)


def make_room(tx: Connection, run: "NewRun", birth: Birth, *, now: datetime) -> list[RunRow]:
    """End the runs that a new one replaces: those that wait at once, those that run are asked to stop."""
    detail = {**(birth.detail or {}), "replaced_by": run.id}
    ended = [
        ownership.cancel(tx, old, reason=REPLACED, detail=detail, now=now) for old in sorted(birth.replaces)
    ]
    return [row for row in ended if row is not None]
