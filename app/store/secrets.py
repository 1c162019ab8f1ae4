"""Secrets as they lie in the database: sealed. The keys are `vault.py`'s; nothing here sees a value."""

from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from sqlalchemy import Connection, delete, select, update

from app.models.rows import SecretRow
from app.store.sql import SECRET, insert, lock_named

T = TypeVar("T")


def page(tx: Connection, *, limit: int, after: str = "") -> list[SecretRow]:
    """Names and times, in the order of the names."""
    query = select(SECRET.c.name, SECRET.c.created_at, SECRET.c.updated_at)
    query = query.where(SECRET.c.name > after).order_by(SECRET.c.name).limit(limit)
    return [SecretRow(*row) for row in tx.execute(query)]


def sealed(tx: Connection, name: str) -> str | None:
    """The sealed value; None when there is no secret of that name."""
    return tx.execute(select(SECRET.c.value).where(SECRET.c.name == name)).scalar()


def put(tx: Connection, name: str, seal: Callable[[], str], *, now: datetime) -> SecretRow:
    """Make a secret or change it. `seal()` gives the sealed value, by the keys of this moment."""
    value = alone(tx, seal)  # sealed earlier, it might be written after a rotation, and the key be gone
    statement = insert(tx, SECRET).values(name=name, value=value, created_at=now, updated_at=now)
    changed = {"value": statement.excluded.value, "updated_at": statement.excluded.updated_at}
    statement = statement.on_conflict_do_update(index_elements=[SECRET.c.name], set_=changed)
    row = tx.execute(statement.returning(SECRET.c.name, SECRET.c.created_at, SECRET.c.updated_at)).one()
    return SecretRow(*row)


def remove(tx: Connection, name: str) -> bool:
    """Forget a secret; False when there is none of that name."""
    return tx.execute(delete(SECRET).where(SECRET.c.name == name)).rowcount > 0


def reseal(tx: Connection, begin: Callable[[], T], sealer: Callable[[str, str], str]) -> tuple[int, T]:
    """Seal every value anew, all or none; how many, and what `begin()` gave, which is called first.

    `sealer(name, sealed)` gives the new form, or raises.
    """
    began = alone(tx, begin)
    rows = tx.execute(select(SECRET.c.name, SECRET.c.value).order_by(SECRET.c.name)).all()
    for row in rows:
        renewed = sealer(row.name, row.value)
        tx.execute(update(SECRET).where(SECRET.c.name == row.name).values(value=renewed))
    return len(rows), began


def alone(tx: Connection, change: Callable[[], T]) -> T:
    """Call `change` while nobody else seals anything or changes the keys, which is so until the transaction ends."""
    lock_named(tx, "secrets")
    return change()
