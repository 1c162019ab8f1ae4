"""The journal's SQLite side: `executemany` a kind of row, on the writer thread's own connection."""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sqlalchemy import Connection

from app import clock
from app.errors import LeaseLost
from app.models.columns import to_us
from app.models.states import (
    BLOCK_TERMINAL,
    BLOCK_TRANSITIONS,
    RUN_TRANSITIONS,
    BlockStatus,
    RunStatus,
    sources,
)
from app.store.db import Database, dumps
from app.store.journal import Answer
from app.store.sql import take_seq
from app.store.units import Mismatch, Unit, Verdict


def _in(states: Iterable[str]) -> str:
    return "(" + ",".join(f"'{state}'" for state in states) + ")"


_LOCK = (
    "SELECT cancel_requested_at, deadline_at FROM pipeline_run"
    " WHERE id=? AND status='running' AND owner=? AND epoch=?"
)
_CLOSE_ATTEMPT = (
    "UPDATE block_attempt SET ended_at=?, e_seq=?, outcome=?, error=?, evidence=?, code_hash=?"
    " WHERE block_run_id=? AND attempt=? AND outcome IS NULL"
)
_FINISH_BLOCK = (
    "UPDATE block_run SET status=?, status_reason=?, completed_at=max(?,started_at), outputs=?, error=?, metrics=?,"
    " wake_at=?"
    " WHERE id=? AND status='running' AND attempt=?"
)
_SETTLE = (
    "UPDATE block_run SET status=?, status_reason=?, completed_at=max(?,coalesce(started_at,0)),"
    " outputs=coalesce(?,outputs), wake_at=NULL"
    " WHERE id=? AND status IN " + _in((BlockStatus.INITIAL, BlockStatus.QUEUED))
)
_WAIT = "UPDATE block_run SET wake_at=? WHERE id=? AND status='running'"
_START_BLOCK = (
    "UPDATE block_run SET status='running', attempt=?, started_at=coalesce(started_at,?), wake_at=NULL"
    " WHERE id=? AND attempt=?-1 AND status IN " + _in(sources(BLOCK_TRANSITIONS, BlockStatus.RUNNING))
)
_COUNT_HOOK = "UPDATE block_run SET attempt=? WHERE id=? AND attempt=?-1"
_OPEN_ATTEMPT = (
    "INSERT INTO block_attempt(block_run_id, attempt, kind, hook, epoch, node_id, started_at, s_seq)"
    " VALUES(?,?,?,?,?,?,?,?)"
)
_PLAN = (
    "UPDATE block_run SET status='queued', children=?, started_at=?"
    " WHERE id=? AND status='initial' AND children IS NULL"
)
_CHILD = (
    "INSERT INTO block_run(id, pipeline_run_id, position, block_uuid, status, attempt, max_attempts, parent_id,"
    " item_index, carried_from, outputs, completed_at) VALUES(?,?,?,?,?,0,?,?,?,?,?,?)"
)
#: When a run is over. One that a node's clock has timed out a little early is so at its deadline.
_END = "max(?3,started_at,CASE WHEN ?2='timeout' THEN coalesce(deadline_at,0) ELSE 0 END)"
_CLOSE_RUN = (
    "UPDATE pipeline_run SET status=?1, completed_at=" + _END + ", e_seq=?4, metrics=?5,"
    # Whoever asked for the cancel has said why.
    " status_reason=CASE WHEN ?1='cancelled' THEN coalesce(status_reason,?2) ELSE ?2 END,"
    " status_detail=CASE WHEN ?1='cancelled' THEN status_detail END,"
    " passed_sla=passed_sla OR coalesce(sla_at<" + _END + ",0) OR ?2 IS 'sla',"
    " sla_passed_at=coalesce(sla_passed_at, CASE WHEN sla_at<" + _END + " OR ?2='sla'"
    "  THEN max(sla_at," + _END + ") END)"
    " WHERE id=?6 AND status IN "
    + _in(sources(RUN_TRANSITIONS, RunStatus.COMPLETED))
    + " AND NOT EXISTS(SELECT 1 FROM block_run WHERE pipeline_run_id=pipeline_run.id AND status IN "
    + _in(state for state in BlockStatus if state not in BLOCK_TERMINAL)
    + ")"
)
_CHUNK = "INSERT INTO block_log(pipeline_run_id, pos, block_run_id, attempt, lines) VALUES(?,?,?,?,?)"


class SqliteJournal:
    """Flushes through the database's writer, so that doors and journal share commits."""

    def __init__(self, db: Database, node_id: str) -> None:
        self._db, self._node_id = db, node_id

    async def open(self) -> None:
        """Nothing to do: the writer's connection is open."""

    async def flush(self, units: Sequence[Unit]) -> list[Answer]:
        """One unit of work for the writer."""
        return await self._db.write(flush, self._node_id, units)

    async def close(self) -> None:
        """Nothing to do."""


def flush(tx: Connection, node_id: str, units: Sequence[Unit]) -> list[Answer]:
    """Write units; answers in their order. A unit that does not fit undoes only itself."""
    raw: sqlite3.Connection = tx.connection.driver_connection  # type: ignore[assignment]
    now = to_us(clock.now())
    locked: dict[tuple[int, int], Verdict | None] = {}
    for unit in units:
        key = (unit.run_id, unit.epoch)
        if key not in locked:
            locked[key] = _lock(raw, node_id, key, now)
    answers: list[Answer] = [
        locked[unit.run_id, unit.epoch] or LeaseLost(f"run {unit.run_id} is no longer this node's")
        for unit in units
    ]
    good = [(u, a) for u, a in zip(units, answers, strict=True) if isinstance(a, Verdict)]
    if _attempt(raw, lambda: _apply(tx, raw, node_id, good, now)) is None:
        return answers
    # Some unit does not fit: find out which, by writing them one by one.
    for index, unit in enumerate(units):
        answer = answers[index]
        if isinstance(answer, Verdict):
            one = [(unit, answer)]
            failed = _attempt(raw, lambda one=one: _apply(tx, raw, node_id, one, now))  # type: ignore[misc]
            answers[index] = failed or answer
    return answers


def _attempt(raw: sqlite3.Connection, write: Callable[[], None]) -> Mismatch | None:
    raw.execute("SAVEPOINT journal")
    try:
        write()
    except (Mismatch, sqlite3.IntegrityError, sqlite3.InterfaceError, OverflowError, TypeError) as error:
        raw.execute("ROLLBACK TO journal")
        return error if isinstance(error, Mismatch) else Mismatch(f"{type(error).__name__}: {error}")
    finally:
        raw.execute("RELEASE journal")
    return None


def _lock(raw: sqlite3.Connection, node_id: str, key: tuple[int, int], now: int) -> Verdict | None:
    row = raw.execute(_LOCK, (key[0], node_id, key[1])).fetchone()
    if row is None:
        return None
    cancel, deadline = row
    if cancel is not None:
        return Verdict("cancel")
    return Verdict("deadline" if deadline is not None and deadline <= now else None)


def _apply(
    tx: Connection, raw: sqlite3.Connection, node_id: str, units: list[tuple[Unit, Verdict]], now: int
) -> None:
    """Finishes before starts: an upstream's end then always precedes its downstream's start in `seq`."""
    finishes = [f for unit, _ in units for f in unit.finishes]
    ends = take_seq(tx, len(finishes))
    _many(
        raw,
        _CLOSE_ATTEMPT,
        [
            (now, seq, f.outcome, _json(f.error), _json(f.evidence), f.code_hash, f.block_run_id, f.attempt)
            for f, seq in zip(finishes, ends, strict=True)
        ],
    )
    _many(
        raw,
        _FINISH_BLOCK,
        [
            (
                f.status,
                f.reason,
                now if f.status in BLOCK_TERMINAL else None,
                f.outputs,
                _json(f.error),
                _json(f.metrics),
                to_us(f.wake_at) if f.wake_at else None,
                f.block_run_id,
                f.attempt,
            )
            for f in finishes
            if not f.hook
        ],
    )
    _plan(raw, [unit for unit, _ in units if unit.plans or unit.children], now)
    _settle(raw, [unit for unit, _ in units], now)
    _start(tx, raw, node_id, units, now)
    _close(tx, raw, [unit for unit, _ in units if unit.close], now)
    chunks = [(u.run_id, c.pos, c.block_run_id, c.attempt, c.lines) for u, _ in units for c in u.chunks]
    _many(raw, _CHUNK, chunks)


def _settle(raw: sqlite3.Connection, units: list[Unit], now: int) -> None:
    settles = [s for unit in units for s in unit.settles]
    _many(
        raw,
        _SETTLE,
        [
            (s.status, s.reason, now if s.status in BLOCK_TERMINAL else None, s.outputs, s.block_run_id)
            for s in settles
        ],
    )
    _many(raw, _WAIT, [(to_us(w.wake_at), w.block_run_id) for unit in units for w in unit.waits])


def _plan(raw: sqlite3.Connection, units: list[Unit], now: int) -> None:
    _many(raw, _PLAN, [(p.children, now, p.block_run_id) for unit in units for p in unit.plans])
    _many(
        raw,
        _CHILD,
        [
            (
                c.id,
                unit.run_id,
                c.position,
                c.block_uuid,
                BlockStatus.INITIAL if c.carried_from is None else BlockStatus.COMPLETED,
                c.max_attempts,
                c.parent_id,
                c.item_index,
                c.carried_from,
                c.outputs,
                None if c.carried_from is None else now,
            )
            for unit in units
            for c in unit.children
        ],
    )


def _start(
    tx: Connection, raw: sqlite3.Connection, node_id: str, units: list[tuple[Unit, Verdict]], now: int
) -> None:
    """Starts of blocks that were asked to stop are left out; a hook still starts there."""
    starts = [(u.epoch, s) for u, verdict in units for s in u.starts if s.hook or verdict.stop is None]
    seqs = take_seq(tx, len(starts))
    _many(raw, _COUNT_HOOK, [(s.attempt, s.block_run_id, s.attempt) for _, s in starts if s.hook])
    _many(raw, _START_BLOCK, [(s.attempt, now, s.block_run_id, s.attempt) for _, s in starts if not s.hook])
    _many(
        raw,
        _OPEN_ATTEMPT,
        [
            (s.block_run_id, s.attempt, "hook" if s.hook else "block", s.hook, epoch, node_id, now, seq)
            for (epoch, s), seq in zip(starts, seqs, strict=True)
        ],
    )


def _close(tx: Connection, raw: sqlite3.Connection, units: list[Unit], now: int) -> None:
    seqs = take_seq(tx, len(units))
    _many(
        raw,
        _CLOSE_RUN,
        [
            (u.close.status, u.close.reason, now, seq, dumps(dict(u.close.metrics)), u.run_id)
            for u, seq in zip(units, seqs, strict=True)
            if u.close
        ],
    )


def _many(raw: sqlite3.Connection, statement: str, rows: list[tuple[Any, ...]]) -> None:
    if not rows:
        return
    cursor = raw.executemany(statement, rows) if len(rows) > 1 else raw.execute(statement, rows[0])
    if cursor.rowcount != len(rows):
        raise Mismatch(f"{cursor.rowcount} of {len(rows)} rows matched: {statement}")


def _json(value: Any) -> str | None:
    return None if value is None else dumps(dict(value))
