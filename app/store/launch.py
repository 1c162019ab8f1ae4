"""Named transactions *launch* and *admit*: how a run comes to be and how it may start.

The rules are the scheduler's; here are the locks they need: scope rows first, in key order, and everything
counted in a statement after that (a count in the locking statement overshoots under READ COMMITTED).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, or_, select, update

from app.models.rows import RunRow
from app.models.states import BLOCK_TERMINAL, BlockStatus, NodeState, RunStatus
from app.store.idempotency import Idempotency, claim
from app.store.runs import RUN_COLUMNS, get, run_row
from app.store.scopes import lock_scopes, running, scopes_of
from app.store.sql import ATTEMPT, BLOCK, LIMIT, NODE, RUN, VERSION, in_chunks, insert, take_seq

#: Waiting runs looked at in one pass; full scopes are left out, so that they never hide others.
WINDOW = 200


@dataclass(frozen=True, slots=True)
class NewBlock:
    """A block run to be made with its run."""

    id: int
    uuid: str
    max_attempts: int = 1
    #: other than `initial`: `skipped`, or `completed` with what an earlier run left
    status: BlockStatus = BlockStatus.INITIAL
    reason: str | None = None
    carried_from: int | None = None
    outputs: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """A run to be made. `values` are columns of `pipeline_run`; ids are taken already."""

    id: int
    values: Mapping[str, Any]
    definition: str
    blocks: tuple[NewBlock, ...]
    #: block runs for which the launching node holds a free worker: their first attempt starts with the run
    first: tuple[int, ...] = ()
    #: set when the run is over at birth (a limit cancelled it)
    ended: tuple[RunStatus, str] | None = None
    #: the caller's key, taken in the same transaction
    request: Idempotency | None = None
    #: how many runs of its trigger are live -> how it ends at birth, if it does; asked under the trigger's lock
    fate: Callable[[int], tuple[RunStatus, str] | None] | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """A created run that may be admitted."""

    id: int
    scopes: tuple[str, ...]


#: (waiting runs in order, scope -> places left, free run slots) -> ids that may start
Decide = Callable[[Sequence[Waiting], Mapping[str, int], int], list[int]]


@dataclass(frozen=True, slots=True)
class Launched:
    """What became of a launch: the run as it now stands, and whether this node claimed it at once."""

    run: RunRow
    created: bool
    claimed: bool


@dataclass(slots=True)
class Claimer:
    """A node that wants runs: how many it can take and what it decides by."""

    node_id: str
    free: int
    decide: Decide
    taken: list[int] = field(default_factory=list)
    #: runs that :func:`admit` saw waiting and left
    left: int = 0


def launch(
    tx: Connection, runs: Sequence[NewRun], claimer: Claimer | None, *, now: datetime
) -> list[Launched]:
    """Create runs with their blocks; claim at once what no limit touches while the claimer has room and none waits.

    A run whose dedupe key exists already is not made again: the existing one is answered, created=False.
    """
    keep_versions(tx, runs, now=now)
    if claimer is not None and not _is_alive(tx, claimer.node_id):
        claimer = None  # fenced or leaving: what it makes now is for others to start
    first_come = claimer is None or not _any_waits(tx)  # else admission decides whose turn it is
    judged = lock_scopes(tx, {_own_scope(run) for run in runs if run.fate})
    limited = _limited_scopes(tx, runs)
    made: list[Launched] = []
    for asked in runs:
        if (earlier := _asked_before(tx, asked, now=now)) is not None:
            made.append(earlier)
            continue
        run = _judge(tx, asked)
        free = first_come and not run.ended and not (limited & set(_scopes(run)))
        claims = free and claimer is not None and claimer.free > 0
        made.append(_insert(tx, run, claimer if claims else None, now=now))
    wait = any(m.created and not m.claimed for m in made)
    # Admission locks scopes in key order; after a lock of ours it would not: the next transaction does it.
    if claimer is not None and wait and not judged and claimer.free > 0:
        admitted = {run.id: run for run in admit(tx, claimer, now=now)}
        made = [Launched(admitted.get(m.run.id, m.run), m.created, m.claimed) for m in made]
    return made


def _is_alive(tx: Connection, node_id: str) -> bool:
    query = select(NODE.c.id).where(NODE.c.id == node_id, NODE.c.state == NodeState.LIVE)
    return tx.execute(query).first() is not None


def _any_waits(tx: Connection) -> bool:
    query = select(RUN.c.id).where(RUN.c.status == RunStatus.INITIAL, RUN.c.cancel_requested_at.is_(None))
    return tx.execute(query.limit(1)).first() is not None


def keep_versions(tx: Connection, runs: Iterable[NewRun], *, now: datetime) -> None:
    """Store the definitions that runs were frozen with, once each."""
    versions = {run.values["pipeline_hash"]: run for run in runs}
    for digest, run in sorted(versions.items()):
        tx.execute(
            insert(tx, VERSION)
            .values(
                hash=digest,
                pipeline_uuid=run.values["pipeline_uuid"],
                definition=run.definition,
                created_at=now,
            )
            .on_conflict_do_nothing(index_elements=[VERSION.c.hash])
        )


def _scopes(run: NewRun) -> tuple[str, ...]:
    values = run.values
    return scopes_of(
        values["pipeline_uuid"],
        values.get("pipeline_schedule_id"),
        values.get("concurrency_key"),
        values.get("rides", False),
    )


def _own_scope(run: NewRun) -> str:
    return f"schedule:{run.values['pipeline_schedule_id']}"


def _judge(tx: Connection, run: NewRun) -> NewRun:
    """The run with its fate: over at birth when its trigger allows no more beside the live ones."""
    if run.fate is None:
        return run
    return replace(run, ended=run.fate(running(tx, _own_scope(run), waiting=True)))


def _limited_scopes(tx: Connection, runs: Iterable[NewRun]) -> set[str]:
    keys = sorted({scope for run in runs for scope in _scopes(run)})
    return set(tx.execute(select(LIMIT.c.scope).where(LIMIT.c.scope.in_(keys))).scalars())


def _asked_before(tx: Connection, run: NewRun, *, now: datetime) -> Launched | None:
    """The run that the same request has made, if this is its repetition."""
    known = claim(tx, run.request, run.id, now=now) if run.request else None
    found = get(tx, known.effect_id) if known else None
    return Launched(found, created=False, claimed=False) if found else None


def _insert(tx: Connection, run: NewRun, claimer: Claimer | None, *, now: datetime) -> Launched:
    state = _state_at_birth(tx, run, claimer, now=now)
    row = tx.execute(
        insert(tx, RUN)
        .values(id=run.id, created_at=now, **{**_DEFAULTS, **run.values, **state})
        .on_conflict_do_nothing(index_elements=[RUN.c.dedupe_scope, RUN.c.dedupe_key])
        .returning(*RUN_COLUMNS)
    ).first()
    if row is None:
        return Launched(_existing(tx, run), created=False, claimed=False)
    claimed = claimer is not None
    if claimer is not None:
        claimer.free -= 1
        claimer.taken.append(run.id)
    first = frozenset(run.first if claimed else ())
    if run.blocks:
        tx.execute(BLOCK.insert(), [_block(run, b, i, b.id in first, now) for i, b in enumerate(run.blocks)])
    if first and claimer is not None:
        tx.execute(
            ATTEMPT.insert(), [_attempt(block_id, claimer.node_id, tx, now) for block_id in sorted(first)]
        )
    return Launched(run_row(row), created=True, claimed=claimed)


_DEFAULTS: dict[str, Any] = {
    "variables": {},
    "event_variables": {},
    "options": {},
    "metrics": {},
    "priority": 0,
    "recoveries": 0,
    "passed_sla": False,
    "depth": 0,
    "rides": False,
}


def _state_at_birth(tx: Connection, run: NewRun, claimer: Claimer | None, *, now: datetime) -> dict[str, Any]:
    if run.ended:
        status, reason = run.ended
        return {"status": status, "status_reason": reason, "completed_at": now, "epoch": 0}
    if claimer is None:
        return {"status": RunStatus.INITIAL, "epoch": 0}
    timeout = run.values.get("timeout_s")
    return {
        "status": RunStatus.RUNNING,
        "owner": claimer.node_id,
        "epoch": 1,
        "started_at": now,
        "s_seq": take_seq(tx, 1)[0],
        "deadline_at": now + timedelta(seconds=timeout) if timeout else None,
    }


def _block(run: NewRun, block: NewBlock, position: int, started: bool, now: datetime) -> dict[str, Any]:
    status = BlockStatus.RUNNING if started else block.status
    if run.ended and status not in BLOCK_TERMINAL:
        status = BlockStatus.CANCELLED
    return {
        "id": block.id,
        "pipeline_run_id": run.id,
        "position": position,
        "block_uuid": block.uuid,
        "status": status,
        "status_reason": block.reason,
        "max_attempts": block.max_attempts,
        "attempt": int(started),
        "started_at": now if started else None,
        "completed_at": now if status in BLOCK_TERMINAL else None,
        "carried_from": block.carried_from,
        "outputs": block.outputs,
    }


def _attempt(block_id: int, node_id: str, tx: Connection, now: datetime) -> dict[str, Any]:
    return {
        "block_run_id": block_id,
        "attempt": 1,
        "kind": "block",
        "epoch": 1,
        "node_id": node_id,
        "started_at": now,
        "s_seq": take_seq(tx, 1)[0],
    }


def _existing(tx: Connection, run: NewRun) -> RunRow:
    values = run.values
    row = tx.execute(
        select(*RUN_COLUMNS).where(
            RUN.c.dedupe_scope == values.get("dedupe_scope"), RUN.c.dedupe_key == values.get("dedupe_key")
        )
    ).one()
    return run_row(row)


def admit(tx: Connection, claimer: Claimer, *, now: datetime) -> list[RunRow]:
    """Claim waiting runs for a node, in order, as far as limits and its free slots allow."""
    full: set[str] = set()
    admitted: list[RunRow] = []
    while claimer.free > 0:
        waiting = _waiting(tx, full)
        room = _room(tx, {scope for run in waiting for scope in run.scopes})
        claimed = _claim(tx, claimer.decide(waiting, room, claimer.free), claimer, now=now)
        admitted += claimed
        claimer.left = len(waiting) - len(claimed)
        used = Counter(scope for run in claimed for scope in _scopes_of_row(run))
        now_full = {scope for scope, places in room.items() if places <= used[scope]}
        if len(waiting) < WINDOW or now_full <= full:
            break
        full |= now_full
    return admitted


def _scopes_of_row(run: RunRow) -> tuple[str, ...]:
    return scopes_of(run.pipeline_uuid, run.pipeline_schedule_id, run.concurrency_key, run.rides)


def _waiting(tx: Connection, full: set[str]) -> list[Waiting]:
    """The first waiting runs that name no full scope."""
    query = (
        select(RUN.c.id, RUN.c.pipeline_uuid, RUN.c.pipeline_schedule_id, RUN.c.concurrency_key, RUN.c.rides)
        .where(RUN.c.status == RunStatus.INITIAL, RUN.c.cancel_requested_at.is_(None))
        .order_by(RUN.c.priority.desc(), RUN.c.created_at, RUN.c.id)
        .limit(WINDOW)
    )
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
        for row in tx.execute(query)
    ]


def _room(tx: Connection, scopes: set[str]) -> dict[str, int]:
    caps: dict[str, int] = {}
    for chunk in in_chunks(sorted(scopes)):
        caps.update(lock_scopes(tx, chunk))
    return {scope: cap - running(tx, scope) for scope, cap in caps.items()}


def _claim(tx: Connection, ids: Sequence[int], claimer: Claimer, *, now: datetime) -> list[RunRow]:
    """Move runs to this node while it is alive; runs that another node took meanwhile are left out."""
    alive = select(NODE.c.id).where(NODE.c.id == claimer.node_id, NODE.c.state == NodeState.LIVE)
    claimed: list[RunRow] = []
    for run_id, seq in zip(ids, take_seq(tx, len(ids)), strict=True):
        row = tx.execute(
            update(RUN)
            .where(
                RUN.c.id == run_id,
                RUN.c.status == RunStatus.INITIAL,
                RUN.c.cancel_requested_at.is_(None),
                alive.exists(),
            )
            .values(
                status=RunStatus.RUNNING,
                owner=claimer.node_id,
                epoch=RUN.c.epoch + 1,
                started_at=now,
                s_seq=seq,
            )
            .returning(*RUN_COLUMNS)
        ).first()
        if row is None:
            continue
        run = run_row(row)
        if run.timeout_s:
            deadline = now + timedelta(seconds=run.timeout_s)
            tx.execute(update(RUN).where(RUN.c.id == run_id).values(deadline_at=deadline))
            run = run_row(tx.execute(select(*RUN_COLUMNS).where(RUN.c.id == run_id)).one())
        claimer.free -= 1
        claimer.taken.append(run_id)
        claimed.append(run)
    return claimed
