"""The journal on a shared server: a flush has a number, so that one whose answer was lost is never done twice.

It is the bargain of `journal_postgres`: `node_journal.seq` moves with each flush, and a fenced node's is -1. The
rows are written by the SQLite journal's own `flush`, with its check of owner and epoch.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, func, select, tuple_, update

from app.errors import LeaseLost, OutcomeUnknown, StoreUnavailable
from app.store import journal_sqlite
from app.store.journal import Answer
from app.store.sql import ATTEMPT, JOURNAL, RUN
from app.store.units import Unit, Verdict


class SharedJournal:
    """Flushes of one node (`app.store.journal.Backend`)."""

    def __init__(self, db: Any, node_id: str) -> None:
        self._db, self._node_id = db, node_id
        self._seq: int | None = None

    async def open(self) -> None:
        """Read how far this node's journal has come."""
        self._seq = await self._db.read(_position, self._node_id)

    async def flush(self, units: Sequence[Unit]) -> list[Answer]:
        """See `Backend.flush`."""
        if self._seq is None:
            await self.open()
        assert self._seq is not None
        try:
            answers = await self._db.write(_flush, self._node_id, self._seq, units)
        except OutcomeUnknown as error:
            return await self._after_loss(error, units)
        self._seq += 1
        return answers  # type: ignore[no-any-return]

    async def _after_loss(self, error: OutcomeUnknown, units: Sequence[Unit]) -> list[Answer]:
        assert self._seq is not None
        expected = self._seq + 1
        while True:
            try:
                self._seq = await self._db.read(_position, self._node_id)
                if self._seq != expected:
                    raise error
                return await self._db.read(_found, self._node_id, units)  # type: ignore[no-any-return]
            except StoreUnavailable as again:
                if again is error:
                    raise
                await asyncio.sleep(0.2)

    async def close(self) -> None:
        """Nothing is kept."""


def _position(tx: Connection, node_id: str) -> int:
    seq = tx.execute(select(JOURNAL.c.seq).where(JOURNAL.c.node_id == node_id)).scalar()
    if seq is None or seq < 0:
        raise LeaseLost("this node has been fenced")
    return seq


def _flush(tx: Connection, node_id: str, expected: int, units: Sequence[Unit]) -> list[Answer]:
    moved = update(JOURNAL).where(JOURNAL.c.node_id == node_id, JOURNAL.c.seq == expected)
    if tx.execute(moved.values(seq=expected + 1)).rowcount != 1:
        raise LeaseLost("this node has been fenced")
    return journal_sqlite.flush(tx, node_id, units)


def _found(tx: Connection, node_id: str, units: Sequence[Unit]) -> list[Answer]:
    return [_found_one(tx, node_id, unit) for unit in units]


def _found_one(tx: Connection, node_id: str, unit: Unit) -> Answer:
    """The answer to a unit that was written, read from the rows: were its starts written?"""
    row = tx.execute(
        select(RUN.c.owner, RUN.c.epoch, RUN.c.cancel_requested_at).where(RUN.c.id == unit.run_id)
    ).one()
    if (row.owner, row.epoch) != (node_id, unit.epoch):
        return LeaseLost(f"run {unit.run_id} is no longer this node's")
    keys = [(start.block_run_id, start.attempt) for start in unit.starts]
    started = select(func.count()).where(tuple_(ATTEMPT.c.block_run_id, ATTEMPT.c.attempt).in_(keys))
    if not keys or tx.execute(started).scalar_one() == len(keys):
        return Verdict()
    return Verdict("deadline" if row.cancel_requested_at is None else "cancel")
