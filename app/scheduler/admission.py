"""May a run start, wait, or not be? Pure rules; the store calls them with the rows it has locked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from app.models.states import RunStatus
from app.store.admit import Waiting


def admissible(waiting: Sequence[Waiting], room: Mapping[str, int], free: int) -> list[int]:
    """Which runs may start now, in order; `room` has the places left of each limited scope.

    A run starts when every scope it names has room. One that is blocked takes no place, so it blocks nobody
    in the scopes where there is room.

    >>> a, b, c = (Waiting(i, scopes) for i, scopes in enumerate([("g", "x"), ("g", "y"), ("g", "x")], 1))
    >>> admissible([a, b, c], {"x": 1}, free=9)
    [1, 2]
    >>> admissible([a, b, c], {"x": 0, "g": 1}, free=9)
    [2]
    """
    left = dict(room)
    chosen: list[int] = []
    for run in waiting:
        if len(chosen) >= free:
            break
        if any(left.get(scope, 1) <= 0 for scope in run.scopes):
            continue
        chosen.append(run.id)
        for scope in run.scopes:
            if scope in left:
                left[scope] -= 1
    return chosen


@dataclass(frozen=True, slots=True)
class Birth:
    """What a due slot of a trigger becomes: a run, a run cancelled at birth, or no run at all."""

    fate: Literal["run", "cancelled", "skipped"]
    reason: str | None = None


def at_birth(settings: Mapping[str, Any], *, live: int) -> Birth:
    """The fate of a new run of a trigger that has `live` runs waiting or running.

    `skip_if_previous_running`: no run while another is live. `pipeline_run_limit`: the surplus is cancelled,
    unless `on_pipeline_run_limit_reached` is `wait`.

    >>> at_birth({"pipeline_run_limit": 2}, live=2)
    Birth(fate='cancelled', reason='pipeline_run_limit')
    >>> at_birth({"skip_if_previous_running": True}, live=1)
    Birth(fate='skipped', reason='overlap')
    """
    if settings.get("skip_if_previous_running") and live > 0:
        return Birth("skipped", "overlap")
    limit = settings.get("pipeline_run_limit")
    waits = settings.get("on_pipeline_run_limit_reached", "cancel") == "wait"
    if limit is not None and live >= limit and not waits:
        return Birth("cancelled", "pipeline_run_limit")
    return Birth("run")


def ends_at_birth(settings: Mapping[str, Any], live: int) -> tuple[RunStatus, str] | None:
    """How a run ends at birth that somebody asked for by name, and so gets a row in any case; None: it lives.

    >>> ends_at_birth({"skip_if_previous_running": True}, 1)
    (<RunStatus.CANCELLED: 'cancelled'>, 'overlap')
    """
    birth = at_birth(settings, live=live)
    return None if birth.fate == "run" else (RunStatus.CANCELLED, birth.reason or "cancelled")


def schedule_cap(settings: Mapping[str, Any]) -> int | None:
    """How many runs of a trigger may run at once; None is no limit.

    >>> schedule_cap({"pipeline_run_limit": 3, "skip_if_previous_running": True})
    1
    """
    limit = settings.get("pipeline_run_limit")
    if settings.get("skip_if_previous_running"):
        return 1 if limit is None else min(limit, 1)
    return limit
