"""Limits on runs: their caps, where each comes from, and every change of them.

What a project's files say stands here with the source `file` or `setting` and follows them; what an operator
sets has the source `api`. A scope has one limit: what the files say comes first.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, Select, select

from app.store.scopes import NEW_LIMIT, holders, usage
from app.store.sql import HISTORY, LIMIT, insert, lock_named, take_seq

Source = Literal["file", "api", "setting"]


def set_limit(tx: Connection, scope: str, cap: int | None, *, now: datetime, source: Source = "file") -> bool:
    """Set or (None) lift the limit of a scope; True when that changed anything. Every change is kept by seq."""
    old = _lock(tx, scope)
    if old is None and cap is not None:
        lock_named(tx, NEW_LIMIT)
        old = _lock(tx, scope)
    if (old is None and cap is None) or (old is not None and (old.cap, old.source) == (cap, source)):
        return False
    if cap is None:
        tx.execute(LIMIT.delete().where(LIMIT.c.scope == scope))
    else:
        values = {"cap": cap, "source": source, "updated_at": now}
        statement = insert(tx, LIMIT).values(scope=scope, **values)
        tx.execute(statement.on_conflict_do_update(index_elements=[LIMIT.c.scope], set_=values))
    if old is not None and old.cap == cap:
        return True  # another source, the same limit: nothing that a run could notice
    seq = take_seq(tx, 1)[0]
    tx.execute(HISTORY.insert().values(scope=scope, seq=seq, cap=cap, at=now, source=source))
    return True


def _lock(tx: Connection, scope: str) -> Any:
    """The cap and source of a limit, None without one; nobody changes it before the transaction ends."""
    query = select(LIMIT.c.cap, LIMIT.c.source).where(LIMIT.c.scope == scope)
    return tx.execute(query.with_for_update()).first()


def limits(tx: Connection, prefix: str) -> dict[str, int]:
    """The limits whose scope begins with `prefix`."""
    query = select(LIMIT.c.scope, LIMIT.c.cap).where(LIMIT.c.scope.startswith(prefix, autoescape=True))
    return {row.scope: row.cap for row in tx.execute(query)}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A limit as a definition says it."""

    cap: int
    source: Source


def follow(tx: Connection, wanted: Mapping[str, Wanted], *, now: datetime) -> int:
    """Bring the limits to what all definitions together say; how many changed.

    One that they do not mention goes, unless an operator has set it; that of a trigger goes in any case.
    """
    have = {
        row.scope: row
        for row in tx.execute(select(LIMIT.c.scope, LIMIT.c.cap, LIMIT.c.source).order_by(LIMIT.c.scope))
    }
    changed = 0
    if wanted.keys() - have.keys():
        lock_named(tx, NEW_LIMIT)  # before the first row
    for scope in sorted(wanted.keys() | have.keys()):  # the order of all locks
        now_is, to_be = have.get(scope), wanted.get(scope)
        if to_be is None and now_is is not None and now_is.source == "api" and not _is_of_trigger(scope):
            continue
        if to_be is None or now_is is None or (now_is.cap, now_is.source) != (to_be.cap, to_be.source):
            cap = to_be.cap if to_be else None
            changed += set_limit(tx, scope, cap, now=now, source=to_be.source if to_be else "file")
    return changed


def _is_of_trigger(scope: str) -> bool:
    return scope.startswith("schedule:")


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitRow:
    """A limit and how its scope stands now. `source` says who decides it; None is an older version's."""

    scope: str
    cap: int
    source: str | None
    updated_at: datetime | None
    running: int
    waiting: int
    holders: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitChange:
    """One change of a limit; cap None is its end."""

    scope: str
    seq: int
    cap: int | None
    source: str | None
    at: datetime


def get(tx: Connection, scope: str) -> LimitRow | None:
    """One limit."""
    return next(iter(_rows(tx, select(LIMIT).where(LIMIT.c.scope == scope))), None)


def page(tx: Connection, *, limit: int, after: str | None = None) -> list[LimitRow]:
    """Limits in the order of their scopes; `after` continues a page."""
    query = select(LIMIT).order_by(LIMIT.c.scope).limit(limit)
    return _rows(tx, query if after is None else query.where(LIMIT.c.scope > after))


def _rows(tx: Connection, query: Select[Any]) -> list[LimitRow]:
    found = tx.execute(query).all()
    scopes = [row.scope for row in found]
    used, queue = usage(tx, scopes), usage(tx, scopes, waiting=True)
    return [
        LimitRow(
            scope=row.scope,
            cap=row.cap,
            source=row.source,
            updated_at=row.updated_at,
            running=used[row.scope],
            waiting=queue[row.scope],
            holders=holders(tx, row.scope) if used[row.scope] else [],
        )
        for row in found
    ]


def history(tx: Connection, scope: str, *, limit: int, before: int | None = None) -> list[LimitChange]:
    """Changes of a limit, newest first; `before` continues a page."""
    query = select(HISTORY).where(HISTORY.c.scope == scope).order_by(HISTORY.c.seq.desc()).limit(limit)
    rows = tx.execute(query if before is None else query.where(HISTORY.c.seq < before))
    return [
        LimitChange(scope=row.scope, seq=row.seq, cap=row.cap, source=row.source, at=row.at) for row in rows
    ]
