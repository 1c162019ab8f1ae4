"""Named transaction *admit*: how a waiting run may start.

The rules are the scheduler's; here are the locks they need. First a look without locks at who might start, then
the scopes of all that were looked at, locked in one statement in key order, then a count in a statement after
that (one in the locking statement overshoots under READ COMMITTED), and the decision.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Integer, bindparam, select, update

from app.models.rows import RunRow
from app.models.states import RunStatus
from app.store import waits
from app.store.nodes import IS_LIVE
from app.store.runs import RUN_COLUMNS, run_row
from app.store.scopes import (
    IN_TURN,
    IS_WAITING,
    caps_of,
    full,
    in_use,
    is_behind,
    knowing_limits,
    lock_scopes,
    outside,
    scopes_of,
    usage,
)
from app.store.sql import RUN, take_seq

#: Waiting runs looked at in one statement; full scopes are left out, so that they never hide others.
WINDOW = 200


@dataclass(frozen=True, slots=True)
class Waiting:
    """A created run that may be admitted."""

    id: int
    scopes: tuple[str, ...]
    #: whether its row says why it waits
    told: bool = True


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
    if claimer.free <= 0:
        return []
    found = _look(tx, claimer)
    caps = lock_scopes(tx, found.limited)
    used = usage(tx, caps)
    room = {scope: cap - used[scope] for scope, cap in caps.items()}
    claimed = _claim(tx, claimer.decide(found.runs, room, claimer.free), claimer, now=now)
    started = {run.id for run in claimed}
    left = [run for run in found.runs if run.id not in started]
    waits.note(tx, {run.id: run.scopes for run in left if not run.told})
    # What full scopes hold back was not looked at; it waits all the same.
    claimer.left = len(left) or int(found.hidden and tx.execute(_ANY).first() is not None)
    return claimed


@dataclass(slots=True)
class _Found:
    """The runs that may be admitted, first come first, and the limited scopes that they name."""

    runs: list[Waiting] = field(default_factory=list)
    limited: set[str] = field(default_factory=set)
    #: whether runs of full scopes were left out
    hidden: bool = False


def _look(tx: Connection, claimer: Claimer) -> _Found:
    """As many waiting runs as are needed to fill the free slots, by counts that nothing holds still yet."""
    found = _Found()
    used = in_use(tx)
    caps = caps_of(tx, used) if used else {}
    closed = full(caps, used)
    chosen, last = 0, None
    window = min(WINDOW, claimer.free + 1)  # as a rule nothing is in the way, and all that is read is taken
    while True:
        rows = _waiting(tx, closed, last, window)
        page = [_waiting_run(row) for row in rows]
        caps |= caps_of(tx, {scope for run in page for scope in run.scopes} - used.keys() - caps.keys())
        room = {scope: cap - used[scope] for scope, cap in caps.items()}
        picked = set(claimer.decide(page, room, claimer.free - chosen))
        used.update(scope for run in page if run.id in picked for scope in run.scopes)
        chosen += len(picked)
        found.runs += page
        found.hidden = found.hidden or bool(closed)
        closed = full(caps, used)
        if len(page) < window or chosen >= claimer.free:
            found.limited = {scope for run in found.runs for scope in run.scopes if scope in caps}
            return found
        last, window = rows[-1], WINDOW


def _waiting_run(row: Any) -> Waiting:
    scopes = scopes_of(row.pipeline_uuid, row.pipeline_schedule_id, row.concurrency_key, row.rides)
    return Waiting(row.id, scopes, bool(row.told))


_OPEN = (IS_WAITING, RUN.c.cancel_requested_at.is_(None))
_ANY = select(RUN.c.id).where(*_OPEN).order_by(*IN_TURN).limit(1)
_WAITING = (
    select(
        RUN.c.id,
        RUN.c.priority,
        RUN.c.created_at,
        RUN.c.pipeline_uuid,
        RUN.c.pipeline_schedule_id,
        RUN.c.concurrency_key,
        RUN.c.rides,
        RUN.c.status_detail.is_not(None).label("told"),
    )
    .where(*_OPEN)
    .order_by(*IN_TURN)
    .limit(bindparam("window", type_=Integer))
)


def _waiting(tx: Connection, closed: set[str], last: Any, window: int) -> Sequence[Any]:
    """The next waiting runs, after `last`, that name no full scope."""
    query = _WAITING.where(*outside(closed)) if closed else _WAITING
    if last is not None:
        query = query.where(is_behind(last))
    return tx.execute(query, {"window": window}).all()


# Whoever fences a node waits for what it claims: it has claimed before, or not at all.
_PROSPECTS = knowing_limits(select(IS_LIVE.exists(), _ANY.exists()))


def prospects(tx: Connection, node_id: str) -> tuple[bool, bool]:
    """Whether a node may take runs (it is neither leaving nor fenced), and whether any run waits already.

    From here on no scope gets its first limit before the transaction ends.
    """
    alive, queue = tx.execute(_PROSPECTS[tx.dialect.name], {"node": node_id}).one()[:2]
    return bool(alive), bool(queue)


_WAITS = select(_ANY.exists())


def any_waits(tx: Connection) -> bool:
    """Whether any run waits; for a look that must not lock anything."""
    return bool(tx.execute(_WAITS).scalar_one())


_CLAIMABLE = (
    select(*RUN_COLUMNS)
    .where(
        RUN.c.id.in_(bindparam("ids", expanding=True)),
        RUN.c.status == RunStatus.INITIAL,
        RUN.c.cancel_requested_at.is_(None),
        IS_LIVE.exists(),
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
        status_detail=None,  # it said why the run waited
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
        status_detail=None,
        owner=node_id,
        epoch=run.epoch + 1,
        started_at=now,
        deadline_at=deadline_of(run.timeout_s, now),
    )


def deadline_of(timeout_s: float | None, now: datetime) -> datetime | None:
    """When a run that starts now has run out of time."""
    return now + timedelta(seconds=timeout_s) if timeout_s else None
