"""Scopes: what limits on runs are about (all runs, a pipeline, a trigger, a key), and who is in them."""

from collections.abc import Iterable

from sqlalchemy import Connection, bindparam, func, select

from app.models.states import RunStatus
from app.store.sql import LIMIT, RUN, in_chunks


def scopes_of(
    pipeline_uuid: str, schedule_id: int | None, key: str | None, rides: bool = False
) -> tuple[str, ...]:
    """The scopes a run names, widest first. A run whose parent waits for it uses the parent's global place.

    >>> scopes_of("etl", 7, None)
    ('global', 'pipeline:etl', 'schedule:7')
    """
    found = [f"pipeline:{pipeline_uuid}"] if rides else ["global", f"pipeline:{pipeline_uuid}"]
    if schedule_id is not None:
        found.append(f"schedule:{schedule_id}")
    if key is not None:
        found.append(f"key:{key}")
    return tuple(found)


_NAMED = LIMIT.c.scope.in_(bindparam("scopes", expanding=True))
_LOCK = select(LIMIT.c.scope, LIMIT.c.cap).where(_NAMED).order_by(LIMIT.c.scope).with_for_update()
_LIMITED = select(LIMIT.c.scope).where(_NAMED)


def lock_scopes(tx: Connection, scopes: Iterable[str]) -> dict[str, int]:
    """Lock the limits of these scopes, in key order; their caps."""
    names = sorted(scopes)
    return {row.scope: row.cap for row in tx.execute(_LOCK, {"scopes": names})} if names else {}


def limited_scopes(tx: Connection, scopes: Iterable[str]) -> set[str]:
    """Those of the scopes that have a limit."""
    parts = in_chunks(sorted(scopes))
    return {scope for part in parts for scope in tx.execute(_LIMITED, {"scopes": part}).scalars()}


def running(tx: Connection, scope: str, *, waiting: bool = False) -> int:
    """How many runs of a scope run now; with `waiting`, also those that wait."""
    kind, _, value = scope.partition(":")
    statuses = [RunStatus.RUNNING, RunStatus.INITIAL] if waiting else [RunStatus.RUNNING]
    query = select(func.count()).select_from(RUN).where(RUN.c.status.in_(statuses))
    if kind == "global":
        query = query.where(~RUN.c.rides)
    elif kind == "pipeline":
        query = query.where(RUN.c.pipeline_uuid == value)
    elif kind == "schedule":
        query = query.where(RUN.c.pipeline_schedule_id == int(value))
    elif kind == "key":
        query = query.where(RUN.c.concurrency_key == value)
    count: int = tx.execute(query).scalar_one()
    return count
