"""Named transaction *admit*: how a waiting run may start.

The rules are the scheduler's; here are the locks they need: scope rows first, in key order, and everything
counted in a statement after that (a count in the locking statement overshoots under READ COMMITTED).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from sqlalchemy import Connection, Integer, bindparam, or_, select, update

from app.models.rows import RunRow
from app.models.states import NodeState, RunStatus
from app.store.runs import RUN_COLUMNS, run_row
from app.store.scopes import lock_scopes, running, scopes_of
from app.store.sql import NODE, RUN, in_chunks, take_seq

#: Waiting runs looked at in one pass; full scopes are left out, so that they never hide others.
WINDOW = 200


@dataclass(frozen=True, slots=True)
class Waiting:
    """A created run that may be admitted."""

    id: int
    scopes: tuple[str, ...]


#: (waiting runs in order, scope -> places left, free run slots) -> ids that may start
Decide = Callable[[Sequence[Waiting], Mapping[str, int], int], list[int]]


@dataclass(slots=True)
class Claimer:
    """A node that wants runs: how many it can take and what it decides by."""

    node_id: str
    free: int
    decide: Decide
    taken: list[int] = field(default_factory=list)
    #: runs that :func:`admit` saw waiting and left: more than none if there are any
    left: int = 0

    def take(self, ids: Iterable[int]) -> None:
        """Count runs as claimed."""
        for run_id in ids:
            self.free -= 1
            self.taken.append(run_id)


def admit(tx: Connection, claimer: Claimer, *, now: datetime) -> list[RunRow]:
    """Claim waiting runs for a node, in order, as far as limits and its free slots allow."""
    claimer.left = 0
    full: set[str] = set()
    admitted: list[RunRow] = []
    window = min(WINDOW, claimer.free + 1)  # as a rule nothing is in the way, and all that is read is taken
    while claimer.free > 0:
        waiting = _waiting(tx, full, window)
        room = _room(tx, {scope for run in waiting for scope in run.scopes})
        claimed = _claim(tx, claimer.decide(waiting, room, claimer.free), claimer, now=now)
        admitted += claimed
        claimer.left += len(waiting) - len(claimed)  # what a full scope holds back is not looked at again
        used = Counter(scope for run in claimed for scope in _scopes_of_row(run))
        now_full = {scope for scope, places in room.items() if places <= used[scope]}
        if len(waiting) < window or (window == WINDOW and now_full <= full):
            break
        full |= now_full
        window = WINDOW
    return admitted


def _scopes_of_row(run: RunRow) -> tuple[str, ...]:
    return scopes_of(run.pipeline_uuid, run.pipeline_schedule_id, run.concurrency_key, run.rides)


_WAITING = (
    select(RUN.c.id, RUN.c.pipeline_uuid, RUN.c.pipeline_schedule_id, RUN.c.concurrency_key, RUN.c.rides)
    .where(RUN.c.status == RunStatus.INITIAL, RUN.c.cancel_requested_at.is_(None))
    .order_by(RUN.c.priority.desc(), RUN.c.created_at, RUN.c.id)
    .limit(bindparam("window", type_=Integer))
)


def _waiting(tx: Connection, full: set[str], window: int) -> list[Waiting]:
    """The first waiting runs that name no full scope."""
    query = _WAITING
    if "global" in full:
        query = query.where(RUN.c.rides)
    by_kind: dict[str, list[str]] = {}
    for scope in full:
        kind, _, value = scope.partition(":")
        by_kind.setdefault(kind, []).append(value)
    if names := by_kind.get("pipeline"):
        query = query.where(RUN.c.pipeline_uuid.not_in(names))
    if ids := by_kind.get("schedule"):
        column = RUN.c.pipeline_schedule_id
        query = query.where(or_(column.is_(None), column.not_in([int(i) for i in ids])))
    if keys := by_kind.get("key"):
        query = query.where(or_(RUN.c.concurrency_key.is_(None), RUN.c.concurrency_key.not_in(keys)))
    return [
        Waiting(
            row.id,
            scopes_of(row.pipeline_uuid, row.pipeline_schedule_id, row.concurrency_key, row.rides),
        )
        for row in tx.execute(query, {"window": window})
    ]


def _room(tx: Connection, scopes: set[str]) -> dict[str, int]:
    caps: dict[str, int] = {}
    for chunk in in_chunks(sorted(scopes)):
        caps.update(lock_scopes(tx, chunk))
    return {scope: cap - running(tx, scope) for scope, cap in caps.items()}


_ALIVE = select(NODE.c.id).where(NODE.c.id == bindparam("node"), NODE.c.state == NodeState.LIVE)


_PROSPECTS = select(
    _ALIVE.exists(),
    select(RUN.c.id).where(RUN.c.status == RunStatus.INITIAL, RUN.c.cancel_requested_at.is_(None)).exists(),
)


def prospects(tx: Connection, node_id: str) -> tuple[bool, bool]:
    """Whether a node may take runs (it is neither leaving nor fenced), and whether any run waits already."""
    alive, queue = tx.execute(_PROSPECTS, {"node": node_id}).one()
    return bool(alive), bool(queue)


_CLAIMABLE = (
    select(*RUN_COLUMNS)
    .where(
        RUN.c.id.in_(bindparam("ids", expanding=True)),
        RUN.c.status == RunStatus.INITIAL,
        RUN.c.cancel_requested_at.is_(None),
        _ALIVE.exists(),
    )
    .order_by(RUN.c.id)
    .with_for_update(key_share=True, of=RUN)
)
_CLAIM = (
    update(RUN)
    .where(RUN.c.id == bindparam("run"))
    .values(
        status=RunStatus.RUNNING,
        owner=bindparam("node"),
        epoch=RUN.c.epoch + 1,
        started_at=bindparam("now"),
        deadline_at=bindparam("deadline"),
        s_seq=bindparam("seq"),
    )
)


def _claim(tx: Connection, ids: Sequence[int], claimer: Claimer, *, now: datetime) -> list[RunRow]:
    """Move runs to this node while it is alive; runs that another node took meanwhile are left out."""
    if not ids:
        return []
    locked = map(run_row, tx.execute(_CLAIMABLE, {"ids": ids, "node": claimer.node_id}))
    claimed = [
        _claimed(run, claimer.node_id, now) for run in sorted(locked, key=lambda run: ids.index(run.id))
    ]
    rows = [
        {"run": run.id, "node": run.owner, "now": run.started_at, "deadline": run.deadline_at, "seq": seq}
        for run, seq in zip(claimed, take_seq(tx, len(claimed)), strict=True)
    ]
    if rows:
        tx.execute(_CLAIM, rows)
    claimer.take(run.id for run in claimed)
    return claimed


def _claimed(run: RunRow, node_id: str, now: datetime) -> RunRow:
    # It may have been made after the caller had looked at the clock, while he waited for his turn.
    now = max(now, run.created_at)
    return replace(
        run,
        status=RunStatus.RUNNING,
        owner=node_id,
        epoch=run.epoch + 1,
        started_at=now,
        deadline_at=deadline_of(run.timeout_s, now),
    )


def deadline_of(timeout_s: float | None, now: datetime) -> datetime | None:
    """When a run that starts now has run out of time."""
    return now + timedelta(seconds=timeout_s) if timeout_s else None
