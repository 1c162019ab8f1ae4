"""Named transaction *launch*: how a run comes to be, and how it starts with its creation if nothing forbids it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Connection, bindparam, select

from app.errors import Conflict
from app.models.rows import RunRow
from app.models.states import BLOCK_TERMINAL, BlockStatus, RunStatus
from app.store import births, waits
from app.store.admit import Claimer, admit, deadline_of, prospects
from app.store.births import Birth, Judged
from app.store.endings import late_at_birth
from app.store.idempotency import Idempotency, claim
from app.store.ownership import PARENT
from app.store.runs import RUN_COLUMNS, RUN_NAMES, get, run_row
from app.store.scopes import caps_of, scopes_of
from app.store.sql import ATTEMPT, BLOCK, RUN, VERSION, in_chunks, insert_for, take_seq


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
    #: set when the run is over at birth (a limit cancelled it), with the facts behind that
    ended: tuple[RunStatus, str] | None = None
    detail: Mapping[str, Any] | None = None
    #: the caller's key, taken in the same transaction
    request: Idempotency | None = None
    #: set when limits may say that it is over at birth, or that others end for it
    judged: Judged | None = None

    def born(self, birth: Birth) -> "NewRun":
        """The run with its fate: somebody asked for it, so it has a row in any case."""
        if birth.fate == "run":
            return self
        return replace(self, ended=(RunStatus.CANCELLED, birth.reason or "cancelled"), detail=birth.detail)


@dataclass(frozen=True, slots=True)
class Launched:
    """What became of a launch: the run as it now stands, and whether this node claimed it at once."""

    run: RunRow
    created: bool
    claimed: bool
    #: older runs that were ended, or asked to stop, to make room for it
    replaced: tuple[RunRow, ...] = ()


def launch(
    tx: Connection, runs: Sequence[NewRun], claimer: Claimer | None, *, now: datetime
) -> list[Launched]:
    """Create runs with their blocks; claim at once what no limit touches while the claimer has room and none waits.

    A run whose dedupe key exists already is not made again: the existing one is answered, created=False.
    """
    keep_versions(tx, runs, now=now)
    twins = _twins(runs)
    own = [run for run in runs if run.id not in twins]
    made = _asked_before(tx, own, now=now)  # its locks come first: whoever waits for them holds no scope
    alive, queue = prospects(tx, claimer.node_id) if claimer else (False, False)
    if not alive:
        claimer = None  # fenced or leaving: what it makes now is for others to start
    own = [run for run in own if run.id not in made]
    caps = births.lock(tx, own)
    _keep_sources(tx, own)
    own = _heed_parents(tx, own)
    for group in _groups(own):
        new, ends = _judge(tx, group, caps, now=now)
        # With a queue, admission says whose turn it is.
        created = _create(tx, new, None if queue else claimer, now=now)
        made |= {key: replace(m, replaced=ends.get(key, ())) for key, m in created.items()}
    made |= {run_id: replace(made[twin], created=False, claimed=False) for run_id, twin in twins.items()}
    left = [run for run in own if made[run.id].created and made[run.id].run.status is RunStatus.INITIAL]
    # Admission locks scopes in key order; after a lock of ours it would not: the next transaction does it.
    if claimer is not None and left and not caps and claimer.free > 0:
        admitted = {run.id: run for run in admit(tx, claimer, now=now)}
        made = {key: replace(m, run=admitted.get(m.run.id, m.run)) for key, m in made.items()}
        left = [run for run in left if run.id not in admitted]
    if claimer is not None:
        waits.note(tx, {run.id: scopes_of_new(run) for run in left})
    return [made[run.id] for run in runs]


def _twins(runs: Sequence[NewRun]) -> dict[int, int]:
    """Runs that the same request asks for as another one before them, with that one's id."""
    first: dict[Idempotency, int] = {}
    asked = [(run.id, first.setdefault(run.request, run.id)) for run in runs if run.request]
    return {run_id: twin for run_id, twin in asked if run_id != twin}


def _groups(runs: Sequence[NewRun]) -> Iterable[Sequence[NewRun]]:
    """What is made together: everything, unless a run's fate depends on those that were made just before."""
    return [[run] for run in runs] if any(run.judged for run in runs) else [runs]


def keep_versions(tx: Connection, runs: Iterable[NewRun], *, now: datetime) -> None:
    """Store the definitions that runs were frozen with, once each."""
    versions = {
        run.values["pipeline_hash"]: {
            "hash": run.values["pipeline_hash"],
            "pipeline_uuid": run.values["pipeline_uuid"],
            "definition": run.definition,
            "created_at": now,
        }
        for run in runs
    }
    _insert(tx, _version_insert(tx.dialect.name), [versions[digest] for digest in sorted(versions)])


def _keep_sources(tx: Connection, runs: Iterable[NewRun]) -> None:
    """Keep the runs whose outputs are taken over: no key of another table does. Raises Conflict when one is gone."""
    uuids = {
        b.carried_from: b.uuid for run in runs for b in run.blocks if b.carried_from and b.carried_from > 0
    }
    parts = in_chunks(sorted(uuids))
    found = {i for part in parts for i in tx.execute(_SOURCES, {"blocks": part}).scalars()}
    if gone := sorted({uuids[block_id] for block_id in uuids.keys() - found}):
        raise Conflict(
            f"what an earlier run left of {', '.join(map(repr, gone))} has just been pruned",
            hint="ask again: what a newer run has left is taken then; if there is none, run the whole pipeline",
        )


_SOURCES = (
    select(BLOCK.c.id)
    .join(RUN, RUN.c.id == BLOCK.c.pipeline_run_id)
    .where(BLOCK.c.id.in_(bindparam("blocks", expanding=True)))
    .order_by(RUN.c.id)
    .with_for_update(read=True, key_share=True, of=RUN)  # in the way of a deletion only
)


def _heed_parents(tx: Connection, runs: Sequence[NewRun]) -> list[NewRun]:
    """The runs, those cancelled at birth whose parent is over or asked to stop: its cancel did not see them."""
    parents = {run.values["parent_run_id"] for run in runs if run.values.get("parent_run_id") is not None}
    if not parents:
        return list(runs)
    stopping = {row.id for row in tx.execute(_PARENTS, {"runs": sorted(parents)}) if any(row[1:])}
    fate = (RunStatus.CANCELLED, PARENT)
    return [
        replace(run, ended=fate, judged=None) if run.values.get("parent_run_id") in stopping else run
        for run in runs
    ]


_PARENTS = (
    select(RUN.c.id, RUN.c.cancel_requested_at, RUN.c.completed_at)
    .where(RUN.c.id.in_(bindparam("runs", expanding=True)))
    .order_by(RUN.c.id)
    .with_for_update(read=True)  # in the way of `ownership.cancel`, and not of its siblings
)


def _judge(
    tx: Connection, runs: Sequence[NewRun], caps: Mapping[str, int], *, now: datetime
) -> tuple[list[NewRun], dict[int, tuple[RunRow, ...]]]:
    """The runs with their fates, and run id -> the older runs that ended for it."""
    new, ends = [], {}
    for run in runs:
        birth = births.judge(tx, run, caps)
        if birth.replaces:
            ends[run.id] = tuple(births.make_room(tx, run, birth, now=now))
        new.append(run.born(birth))
    return new, ends


def _asked_before(tx: Connection, runs: Sequence[NewRun], *, now: datetime) -> dict[int, Launched]:
    """Of repeated requests the runs that the first ones made. Keys are taken in order: two batches never cross."""
    found: dict[int, Launched] = {}
    asked = [(run.request, run.id) for run in runs if run.request]
    for request, run_id in sorted(asked, key=lambda one: (one[0].scope, one[0].key)):
        known = claim(tx, request, run_id, now=now)
        if known is not None and (run := get(tx, known.effect_id)) is not None:
            found[run_id] = Launched(run, created=False, claimed=False)
    return found


def _create(
    tx: Connection, runs: Sequence[NewRun], claimer: Claimer | None, *, now: datetime
) -> dict[int, Launched]:
    """Insert runs with their blocks and first attempts: one statement a table, however many they are."""
    node_id = claimer.node_id if claimer else ""
    first = {run.id: run.first for run in _starting(tx, runs, claimer)}
    seqs = iter(take_seq(tx, len(first) + sum(map(len, first.values()))))
    rows = [
        _row(run, _started(run, node_id, next(seqs), now) if run.id in first else _not_started(run, now), now)
        for run in runs
    ]
    _insert(tx, _run_insert(tx.dialect.name), rows)
    kept_out = _kept_out(tx, runs)
    made = {
        run.id: _made(tx, run, row, run.id in first, run.id in kept_out)
        for run, row in zip(runs, rows, strict=True)
    }
    new = [run for run in runs if made[run.id].created]
    blocks = [
        _block(run, block, position, block.id in first.get(run.id, ()), now)
        for run in new
        for position, block in enumerate(run.blocks)
    ]
    _insert(tx, _BLOCK_INSERT, blocks)
    started = [block_id for run in new for block_id in sorted(first.get(run.id, ()))]
    _insert(tx, _ATTEMPT_INSERT, [_attempt(block_id, node_id, next(seqs), now) for block_id in started])
    if claimer is not None:
        claimer.take(run.id for run in new if run.id in first)
    return made


def _starting(tx: Connection, runs: Sequence[NewRun], claimer: Claimer | None) -> Sequence[NewRun]:
    """The runs that start with their creation: those that no limit touches, as many as there is room for."""
    if claimer is None or claimer.free <= 0:
        return ()
    limited = caps_of(tx, {scope for run in runs for scope in scopes_of_new(run)})
    return [run for run in runs if not run.ended and limited.keys().isdisjoint(scopes_of_new(run))][
        : claimer.free
    ]


def scopes_of_new(run: NewRun) -> tuple[str, ...]:
    """The scopes that a run to be made will name."""
    values = run.values
    return scopes_of(
        values["pipeline_uuid"],
        values.get("pipeline_schedule_id"),
        values.get("concurrency_key"),
        values.get("rides", False),
    )


def _insert(tx: Connection, statement: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        tx.execute(statement, rows)


# Statements are made once: building one costs as much as running it.
_BLOCK_INSERT, _ATTEMPT_INSERT = BLOCK.insert(), ATTEMPT.insert()


@cache
def _version_insert(dialect: str) -> Any:
    return insert_for(dialect, VERSION).on_conflict_do_nothing(index_elements=[VERSION.c.hash])


@cache
def _run_insert(dialect: str) -> Any:
    return insert_for(dialect, RUN).on_conflict_do_nothing(
        index_elements=[RUN.c.dedupe_scope, RUN.c.dedupe_key]
    )


_DEFAULTS: dict[str, Any] = {
    **dict.fromkeys(RUN.c.keys()),
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


def _row(run: NewRun, state: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """The whole row of a run: every one of them has the same columns, so that one statement takes them all."""
    return {**_DEFAULTS, **run.values, **state, "id": run.id, "created_at": now}


def _not_started(run: NewRun, now: datetime) -> dict[str, Any]:
    if run.ended:
        status, reason = run.ended
        why = {"status_reason": reason, "status_detail": run.detail}
        late = late_at_birth(run.values.get("sla_at"), now)
        return {"status": status, **why, "completed_at": now, "epoch": 0, **late}
    return {"status": RunStatus.INITIAL, "epoch": 0}


def _started(run: NewRun, node_id: str, seq: int, now: datetime) -> dict[str, Any]:
    return {
        "status": RunStatus.RUNNING,
        "owner": node_id,
        "epoch": 1,
        "started_at": now,
        "s_seq": seq,
        "deadline_at": deadline_of(run.values.get("timeout_s"), now),
    }


def _made(tx: Connection, run: NewRun, row: Mapping[str, Any], claimed: bool, kept_out: bool) -> Launched:
    """What the insert came to. Only a dedupe key can have kept a row out: ids are never given out twice."""
    if kept_out:
        return Launched(_with_key(tx, run), created=False, claimed=False)
    return Launched(run_row([row[name] for name in RUN_NAMES]), created=True, claimed=claimed)


def _kept_out(tx: Connection, runs: Sequence[NewRun]) -> set[int]:
    """The runs whose dedupe key was taken before."""
    keyed = [run.id for run in runs if run.values.get("dedupe_key") is not None]
    parts = in_chunks(keyed)
    there = {i for part in parts for i in tx.execute(select(RUN.c.id).where(RUN.c.id.in_(part))).scalars()}
    return {run_id for run_id in keyed if run_id not in there}


def _with_key(tx: Connection, run: NewRun) -> RunRow:
    values = run.values
    row = tx.execute(
        select(*RUN_COLUMNS).where(
            RUN.c.dedupe_scope == values.get("dedupe_scope"), RUN.c.dedupe_key == values["dedupe_key"]
        )
    ).one()
    return run_row(row)


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


def _attempt(block_id: int, node_id: str, seq: int, now: datetime) -> dict[str, Any]:
    return {
        "block_run_id": block_id,
        "attempt": 1,
        "kind": "block",
        "epoch": 1,
        "node_id": node_id,
        "started_at": now,
        "s_seq": seq,
    }
