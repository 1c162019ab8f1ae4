"""May a run start, wait, or not be? Pure rules; the store calls them with the rows it has locked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

from app.models.pipeline import Limits
from app.models.states import Cause
from app.store.admit import Waiting
from app.store.births import Birth, Judged
from app.store.scopes import TOLD, Live

#: Causes for which a full trigger says what becomes of the run at its birth. A retry and a backfill wait.
_JUDGED: Final = frozenset({Cause.TICK, Cause.API, Cause.EVENT, Cause.PIPELINE})
Reached = Literal["cancel", "wait", "replace"]


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
class Policy:
    """What becomes of a run that comes while a scope is full; `skip`: while any run of the scope is live."""

    scope: str
    reached: Reached = "wait"
    skip: bool = False
    #: the setting that says so, for the reason of a run that is cancelled
    setting: str = "pipeline_run_limit"


def schedule_cap(settings: Mapping[str, Any], limits: Limits = Limits()) -> int | None:  # noqa: B008 (frozen)
    """How many runs of a trigger may run at once: its own setting, else its pipeline's; None is no limit.

    >>> schedule_cap({"pipeline_run_limit": 3, "skip_if_previous_running": True})
    1
    >>> schedule_cap({}, Limits(pipeline_run_limit=2))
    2
    """
    limit: int | None = settings.get("pipeline_run_limit")
    if limit is None:
        limit = limits.pipeline_run_limit
    if settings.get("skip_if_previous_running"):
        return 1 if limit is None else min(limit, 1)
    return limit


def reached(settings: Mapping[str, Any], limits: Limits = Limits()) -> Reached:  # noqa: B008 (frozen)
    """What a full trigger does: as it says; its own limit cancels (the brief), one of its pipeline waits (Mage).

    >>> reached({"pipeline_run_limit": 1}), reached({}, Limits(pipeline_run_limit=1))
    ('cancel', 'wait')
    """
    said: Reached | None = settings.get("on_pipeline_run_limit_reached")
    if said is not None:
        return said
    own = settings.get("pipeline_run_limit") is not None
    return "cancel" if own or limits.on_pipeline_run_limit_reached == "cancel" else "wait"


def judged(
    pipeline_uuid: str, schedule_id: int | None, settings: Mapping[str, Any], limits: Limits, cause: Cause
) -> Judged | None:
    """By what a run is judged at its birth; None when it is made in any case, and waits for its turn."""
    if cause not in _JUDGED:
        return None
    policies = []
    skip = bool(settings.get("skip_if_previous_running"))
    how = reached(settings, limits)
    if schedule_id is not None and schedule_cap(settings, limits) is not None and (skip or how != "wait"):
        policies.append(Policy(f"schedule:{schedule_id}", how, skip))
    if limits.on_pipeline_run_limit_reached == "cancel":
        policies.append(
            Policy(f"pipeline:{pipeline_uuid}", "cancel", setting="pipeline_run_limit_all_triggers")
        )
    if not policies:
        return None
    return Judged(tuple(policy.scope for policy in policies), partial(at_birth, tuple(policies)))


def at_birth(
    policies: Sequence[Policy], caps: Mapping[str, int], live: Mapping[str, Sequence[Live]]
) -> Birth:
    """The fate of a new run beside the live ones of its scopes. The first policy that says no decides.

    >>> old = [Live(4, True), Live(5, False)]
    >>> at_birth([Policy("schedule:1", "cancel")], {"schedule:1": 2}, {"schedule:1": old}).reason
    'pipeline_run_limit'
    >>> at_birth([Policy("schedule:1", "replace")], {"schedule:1": 2}, {"schedule:1": old}).replaces
    (4,)
    """
    found = Birth("run")
    for policy in policies:
        birth = _judge(policy, caps.get(policy.scope), live[policy.scope])
        if birth.fate != "run":
            return birth
        if birth.replaces:
            found = birth
    return found


def _judge(policy: Policy, cap: int | None, live: Sequence[Live]) -> Birth:
    if policy.skip and live:
        return Birth("skipped", "overlap", _facts(policy, cap, live, "skip_if_previous_running"))
    if cap is None or len(live) < cap or policy.reached == "wait":
        return Birth("run")
    if policy.reached == "cancel":
        return Birth("cancelled", policy.setting, _facts(policy, cap, live, policy.setting))
    # The newest win: so many of the older ones end that this one is among the `cap` that are left.
    staying = [run.id for run in live if not run.stopping]
    surplus = tuple(staying[: max(0, len(staying) - max(cap - 1, 0))])
    if not surplus:
        return Birth("run")
    return Birth("run", None, _facts(policy, cap, live, policy.setting), surplus)


def _facts(policy: Policy, cap: int | None, live: Sequence[Live], setting: str) -> dict[str, Any]:
    return {
        "scope": policy.scope,
        "setting": setting,
        "cap": cap,
        "running": sum(1 for run in live if run.running),
        "waiting": sum(1 for run in live if not run.running),
        "holders": [run.id for run in live][:TOLD],
    }
