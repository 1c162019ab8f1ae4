"""Secrets as they lie in the database: sealed. The keys are `vault.py`'s; nothing here sees a value."""

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Connection, delete, select, update

from app.models.rows import SecretRow
from app.store.sql import SECRET, insert


def page(tx: Connection, *, limit: int, after: str = "") -> list[SecretRow]:
    """Names and times, in the order of the names."""
    query = select(SECRET.c.name, SECRET.c.created_at, SECRET.c.updated_at)
    query = query.where(SECRET.c.name > after).order_by(SECRET.c.name).limit(limit)
    return [SecretRow(*row) for row in tx.execute(query)]


def sealed(tx: Connection, name: str) -> str | None:
    """The sealed value; None when there is no secret of that name."""
    return tx.execute(select(SECRET.c.value).where(SECRET.c.name == name)).scalar()


def put(tx: Connection, name: str, value: str, *, now: datetime) -> SecretRow:
    """Make a secret or change it. `value` is sealed."""
    statement = insert(tx, SECRET).values(name=name, value=value, created_at=now, updated_at=now)
    changed = {"value": statement.excluded.value, "updated_at": statement.excluded.updated_at}
    statement = statement.on_conflict_do_update(index_elements=[SECRET.c.name], set_=changed)
    row = tx.execute(statement.returning(SECRET.c.name, SECRET.c.created_at, SECRET.c.updated_at)).one()
    return SecretRow(*row)


def remove(tx: Connection, name: str) -> bool:
    """Forget a secret; False when there is none of that name."""
    return tx.execute(delete(SECRET).where(SECRET.c.name == name)).rowcount > 0


def reseal(tx: Connection, sealer: Callable[[str, str], str]) -> int:
    """Seal every value anew, all or none; how many. `sealer(name, sealed)` gives the new form, or raises."""
    rows = tx.execute(select(SECRET.c.name, SECRET.c.value).order_by(SECRET.c.name).with_for_update()).all()
    for row in rows:
        renewed = sealer(row.name, row.value)
        tx.execute(update(SECRET).where(SECRET.c.name == row.name).values(value=renewed))
    return len(rows)
