"""Why runs wait: written once into the row of a run that a limit keeps waiting, and read in full when asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, func, select, update

from app.models.rows import RunRow
from app.models.states import NodeState, RunStatus
from app.store import ownership, runs
from app.store.scopes import (
    IN_TURN,
    IS_WAITING,
    RUNNING,
    TOLD,
    caps_of,
    full,
    holders,
    is_behind,
    scopes_of,
    usage,
)
from app.store.sql import NODE, RUN

_NOTE = (
    update(RUN)
    .where(RUN.c.id == bindparam("run"), RUN.c.status == RunStatus.INITIAL)
    .values(status_detail=bindparam("detail", type_=RUN.c.status_detail.type))
)


@dataclass(frozen=True, slots=True)
class Scope:
    """A limited scope as it stands: who holds its places."""

    scope: str
    cap: int
    running: int
    holders: tuple[int, ...] = ()

    @property
    def is_full(self) -> bool:
        """Whether no run of it may start now."""
        return self.running >= self.cap

    def facts(self) -> dict[str, Any]:
        """The same for a JSON column."""
        return {"scope": self.scope, "cap": self.cap, "running": self.running, "holders": list(self.holders)}


def note(tx: Connection, waiting: Mapping[int, Sequence[str]]) -> None:
    """Write into the rows of waiting runs which full scopes keep them (run id -> its scopes); others stay as they are.

    Once a run: a row is not rewritten each time that somebody else starts. Who asks later gets :func:`facts`.
    """
    caps = caps_of(tx, {scope for scopes in waiting.values() for scope in scopes})
    if not caps:
        return
    used = usage(tx, caps)
    closed = {
        scope: Scope(scope, caps[scope], used[scope], tuple(holders(tx, scope))).facts()
        for scope in full(caps, used)
    }
    rows = [
        {"run": run_id, "detail": {"waits_for": [closed[scope] for scope in scopes if scope in closed]}}
        for run_id, scopes in sorted(waiting.items())
        if any(scope in closed for scope in scopes)
    ]
    if rows:
        tx.execute(_NOTE, rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that decides when a waiting run starts."""

    run: RunRow
    scopes: tuple[Scope, ...]
    #: eligible runs that come before it, by priority and age: how many, and the first of them
    ahead: int
    first: tuple[int, ...]
    #: live node -> runs it drives
    nodes: Mapping[str, int]
    #: runs above it that wait for it, directly or through others
    ancestors: tuple[int, ...] = ()


def facts(tx: Connection, run_id: int) -> Facts | None:
    """What keeps a run waiting now; None when it does not wait."""
    run = runs.get(tx, run_id)
    if run is None or run.status is not RunStatus.INITIAL:
        return None
    names = scopes_of(run.pipeline_uuid, run.pipeline_schedule_id, run.concurrency_key, run.rides)
    caps = caps_of(tx, names)
    used = usage(tx, caps)
    ahead, first = _before(tx, run)
    above = ownership.ancestors(tx, run.parent_run_id) if run.parent_run_id else []
    return Facts(
        run=run,
        scopes=tuple(
            Scope(name, caps[name], used[name], tuple(holders(tx, name))) for name in names if name in caps
        ),
        ahead=ahead,
        first=first,
        nodes=_nodes(tx),
        ancestors=tuple(ancestor.id for ancestor in above),
    )


def _before(tx: Connection, run: RunRow) -> tuple[int, tuple[int, ...]]:
    """How many waiting runs are earlier in the queue, and the first of them."""
    before = (IS_WAITING, RUN.c.cancel_requested_at.is_(None), RUN.c.id != run.id, ~is_behind(run))
    count: int = tx.execute(select(func.count()).select_from(RUN).where(*before)).scalar_one()
    first = tx.execute(select(RUN.c.id).where(*before).order_by(*IN_TURN).limit(TOLD)).scalars()
    return count, tuple(first)


def _nodes(tx: Connection) -> dict[str, int]:
    drives = select(func.count()).select_from(RUNNING).where(RUNNING.c.owner == NODE.c.id).scalar_subquery()
    query = select(NODE.c.id, drives).where(NODE.c.state == NodeState.LIVE).order_by(NODE.c.id)
    return {row[0]: row[1] for row in tx.execute(query)}
