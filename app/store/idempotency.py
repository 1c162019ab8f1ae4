"""Requests that had an effect, so that the same request has it once however often it is sent."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, delete, select, tuple_, update

from app.errors import IdempotencyMismatch
from app.store.sql import IDEMPOTENCY, insert


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A caller's key for one logical request. `scope` is route and caller, `fingerprint` the whole request."""

    scope: str
    key: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of an earlier request with the same key: its effect, and its answer once that was given."""

    effect_id: int
    status: int | None
    answer: str | None


def find(tx: Connection, request: Idempotency) -> Known | None:
    """The earlier request with this key. Raises IdempotencyMismatch when it was another request."""
    row = tx.execute(select(IDEMPOTENCY).where(*_is(request))).first()
    if row is None:
        return None
    if row.fingerprint != request.fingerprint:
        raise IdempotencyMismatch(
            "this Idempotency-Key was used for another request", hint="use a new key for every new request"
        )
    return Known(row.effect_id, row.status, row.answer)


def claim(tx: Connection, request: Idempotency, effect_id: int, *, now: datetime) -> Known | None:
    """Take the key in the transaction of its effect; the earlier request if there was one.

    On Postgres a second request waits here until the first has committed.
    """
    made = tx.execute(
        insert(tx, IDEMPOTENCY)
        .values(
            scope=request.scope,
            key=request.key,
            fingerprint=request.fingerprint,
            effect_id=effect_id,
            created_at=now,
        )
        .on_conflict_do_nothing(index_elements=[IDEMPOTENCY.c.scope, IDEMPOTENCY.c.key])
        .returning(IDEMPOTENCY.c.effect_id)
    ).first()
    return None if made is not None else find(tx, request)


def remember(tx: Connection, request: Idempotency, status: int, answer: str, *, now: datetime) -> None:
    """Keep the first answer; a later one for the same key changes nothing."""
    claim(tx, request, 0, now=now)
    tx.execute(
        update(IDEMPOTENCY)
        .where(*_is(request), IDEMPOTENCY.c.answer.is_(None))
        .values(status=status, answer=answer)
    )


def forget(tx: Connection, *, before: datetime, limit: int) -> int:
    """Drop keys that were first used before then, at most so many; how many."""
    key = (IDEMPOTENCY.c.scope, IDEMPOTENCY.c.key)
    old = select(*key).where(IDEMPOTENCY.c.created_at < before).limit(limit)
    return tx.execute(delete(IDEMPOTENCY).where(tuple_(*key).in_(old))).rowcount


def _is(request: Idempotency) -> tuple[ColumnElement[bool], ...]:
    return (IDEMPOTENCY.c.scope == request.scope, IDEMPOTENCY.c.key == request.key)
