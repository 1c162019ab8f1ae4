"""Why a run waits: reasons from what decides, the one that keeps it longest first. Pure, but for the reading."""

from collections.abc import Iterator
from typing import Any, Final

from app.scheduler.explain import Reason
from app.store import waits
from app.store.db import Tx
from app.store.waits import Facts, Scope

_KINDS: Final = {
    "global": "All pipelines together",
    "pipeline": "Pipeline '{name}'",
    "schedule": "Its trigger",
    "key": "The concurrency key '{name}'",
}
_SETTINGS: Final = {
    "global": "pipeline_run_limit_all_pipelines",
    "pipeline": "pipeline_run_limit_all_triggers",
    "schedule": "pipeline_run_limit",
    "key": "the limit of the key",
}


def explain_waiting(tx: Tx, run_id: int) -> list[Reason]:
    """Why a run does not start now; nothing when it does not wait."""
    found = waits.facts(tx, run_id)
    return why_waiting(found) if found else []


def why_waiting(facts: Facts) -> list[Reason]:
    """The reasons: full limits, a node that is missing, the runs before it, and last that its turn has come.

    >>> full = Facts(run=None, scopes=(Scope("global", 1, 1, (4,)),), ahead=0, first=(), nodes={"n": 1})
    >>> [reason.code for reason in why_waiting(full)]
    ['limit_reached']
    """
    found = [*_limits(facts)]
    if not facts.nodes:
        found.append(Reason("no_node", "No node of the service is there to start it.", {"nodes": {}}))
    if facts.ahead:
        detail = {"position": facts.ahead + 1, "ahead": facts.ahead, "first": list(facts.first)}
        text = f"{facts.ahead} waiting run(s) come before it, by priority and age."
        found.append(Reason("queue", text, detail))
    if not found:
        busy = {"nodes": dict(facts.nodes)}
        text = "No limit keeps it: it starts when a node has a free run slot (RUNWRIGHT_RUN_SLOTS)."
        found.append(Reason("waits_for_node", text, busy))
    return found


def _limits(facts: Facts) -> Iterator[Reason]:
    for scope in facts.scopes:
        if scope.is_full:
            yield _full(scope, facts.ancestors)


def _full(scope: Scope, ancestors: tuple[int, ...]) -> Reason:
    kind, _, name = scope.scope.partition(":")
    who = _KINDS[kind].format(name=name)
    detail: dict[str, Any] = {**scope.facts(), "setting": _SETTINGS[kind]}
    if scope.cap == 0:
        text = f"{who} may have no runs at all now ({_SETTINGS[kind]} is 0)."
        return Reason("limit_zero", text, detail)
    holding = [run_id for run_id in scope.holders if run_id in ancestors]
    text = f"{who} may have {scope.cap} run(s) at once ({_SETTINGS[kind]}), and {scope.running} run: "
    text += ", ".join(map(str, scope.holders)) + "."
    if holding:
        text += f" Run {holding[0]} waits for this one and holds such a place itself."
        return Reason("parent_holds_place", text, detail | {"ancestors": holding})
    return Reason("limit_reached", text, detail)
