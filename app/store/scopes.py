"""Scopes: what limits on runs are about (all runs, a pipeline, a trigger, a key), and who is in them.

Whoever locks scopes locks all that his transaction needs at once, in key order, after the rows of triggers and
before those of runs: two transactions then never wait for one another.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Subquery,
    and_,
    bindparam,
    func,
    literal_column,
    or_,
    select,
    text,
)

from app.models.states import RunStatus
from app.store.sql import LIMIT, RUN, in_chunks

#: Ids told of those that hold the places of a scope.
TOLD: Final = 20


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
_CAPS = select(LIMIT.c.scope, LIMIT.c.cap).where(_NAMED)


#: Who starts runs shares it from before he looks for limits; who makes a limit has it alone. A limit that is not yet
#: there has no row to be locked. Taken after the rows of triggers and before those of limits.
NEW_LIMIT: Final = "limits"
_SHARED = text(f"pg_advisory_xact_lock_shared(hashtextextended('{NEW_LIMIT}', 0))")


def knowing_limits(query: Select[*tuple[Any, ...]]) -> Mapping[str, Select[*tuple[Any, ...]]]:
    """A query by dialect: from its end until that of the transaction no scope gets a limit that had none.

    What the query itself finds may be older: ask for limits after it.
    """
    return {"sqlite": query, "postgresql": query.add_columns(_SHARED)}


def lock_scopes(tx: Connection, scopes: Iterable[str]) -> dict[str, int]:
    """Lock the limits of these scopes, in key order; their caps."""
    return _caps(tx, _LOCK, scopes)


def caps_of(tx: Connection, scopes: Iterable[str]) -> dict[str, int]:
    """The caps of those of the scopes that have a limit, as they are now: nothing is locked."""
    return _caps(tx, _CAPS, scopes)


def _caps(tx: Connection, statement: Any, scopes: Iterable[str]) -> dict[str, int]:
    parts = in_chunks(sorted(scopes))
    return {row.scope: row.cap for part in parts for row in tx.execute(statement, {"scopes": part})}


# The statuses stand in the text: a partial index is of no use to a statement that has them as parameters.
IS_RUNNING: Final = RUN.c.status == literal_column(f"'{RunStatus.RUNNING}'")
IS_WAITING: Final = RUN.c.status == literal_column(f"'{RunStatus.INITIAL}'")


_NAMES = (
    RUN.c.id,
    RUN.c.status,
    RUN.c.owner,
    RUN.c.epoch,
    RUN.c.pipeline_uuid,
    RUN.c.pipeline_schedule_id,
    RUN.c.concurrency_key,
    RUN.c.rides,
    RUN.c.created_at,
    RUN.c.started_at,
    RUN.c.cancel_requested_at,
)
#: The queue: who is first of the runs that wait.
IN_TURN: Final = (RUN.c.priority.desc(), RUN.c.created_at, RUN.c.id)


def is_behind(run: Any) -> ColumnElement[bool]:
    """That a run comes later in the queue than this one, which has a priority, a created_at and an id."""
    same_age = and_(RUN.c.created_at == run.created_at, RUN.c.id > run.id)
    later = and_(RUN.c.priority == run.priority, or_(RUN.c.created_at > run.created_at, same_age))
    return or_(RUN.c.priority < run.priority, later)


# With an order and a bound that is never met SQLite looks through the few live runs of a partial index, and not
# through the history of a trigger, a pipeline or a node.
_ALL: Final = 1_000_000
WAITING: Final = select(*_NAMES).where(IS_WAITING).order_by(*IN_TURN).limit(_ALL).subquery("waiting")
_BY_OWNER = (RUN.c.owner, RUN.c.pipeline_schedule_id, RUN.c.pipeline_uuid)
RUNNING: Final = select(*_NAMES).where(IS_RUNNING).order_by(*_BY_OWNER).limit(_ALL).subquery("running")


def running(tx: Connection, scope: str, *, waiting: bool = False) -> int:
    """How many runs of a scope run now; with `waiting`, also those that wait."""
    count: int = 0
    for runs in (RUNNING, WAITING) if waiting else (RUNNING,):
        query = select(func.count()).select_from(runs).where(_within(runs, scope))
        count += tx.execute(query).scalar_one()
    return count


def _within(runs: Subquery, scope: str) -> ColumnElement[bool]:
    """That a run is of a scope."""
    kind, _, value = scope.partition(":")
    match kind:
        case "global":
            return ~runs.c.rides
        case "pipeline":
            return runs.c.pipeline_uuid == value
        case "schedule":
            return runs.c.pipeline_schedule_id == int(value)
        case _:
            return runs.c.concurrency_key == value


def _used(runs: Subquery) -> Select[Any]:
    scopes = (runs.c.pipeline_uuid, runs.c.pipeline_schedule_id, runs.c.concurrency_key, runs.c.rides)
    return select(*scopes, func.count().label("n")).group_by(*scopes)


_USED: Final = _used(RUNNING)
_QUEUED: Final = _used(WAITING)
#: So many scopes are counted one by one; more, in one statement over all runs.
_FEW: Final = 3


def usage(tx: Connection, scopes: Collection[str], *, waiting: bool = False) -> dict[str, int]:
    """How many runs of each scope run now; with `waiting`, how many wait instead."""
    if len(scopes) <= _FEW and not waiting:
        return {scope: running(tx, scope) for scope in scopes}
    counts = dict.fromkeys(scopes, 0)
    for row in tx.execute(_QUEUED if waiting else _USED):
        of_run = scopes_of(row.pipeline_uuid, row.pipeline_schedule_id, row.concurrency_key, row.rides)
        for scope in of_run:
            if scope in counts:
                counts[scope] += row.n
    return counts


def in_use(tx: Connection) -> Counter[str]:
    """How many runs of each scope run now; scopes without any are left out. Nothing when there is no limit."""
    counts: Counter[str] = Counter()
    if not tx.execute(_ANY_LIMIT[tx.dialect.name]).one()[0]:
        return counts
    for row in tx.execute(_USED):
        of_run = scopes_of(row.pipeline_uuid, row.pipeline_schedule_id, row.concurrency_key, row.rides)
        counts.update(dict.fromkeys(of_run, row.n))
    return counts


_ANY_LIMIT = knowing_limits(select(select(LIMIT.c.scope).exists()))


@dataclass(frozen=True, slots=True)
class Live:
    """A run of a scope that is not over."""

    id: int
    running: bool
    #: it was asked to stop
    stopping: bool = False


def live(tx: Connection, scope: str, *, limit: int) -> list[Live]:
    """The runs of a scope that wait or run, oldest first."""
    found = [
        row
        for runs in (RUNNING, WAITING)
        for row in tx.execute(
            select(runs.c.id, runs.c.status, runs.c.cancel_requested_at, runs.c.created_at)
            .where(_within(runs, scope))
            .order_by(runs.c.created_at, runs.c.id)
            .limit(limit)
        )
    ]
    found.sort(key=lambda row: (row.created_at, row.id))
    return [
        Live(row.id, row.status == RunStatus.RUNNING, row.cancel_requested_at is not None)
        for row in found[:limit]
    ]


def holders(tx: Connection, scope: str) -> list[int]:
    """Ids of the runs that hold the places of a scope, the longest first; at most :data:`TOLD`."""
    query = select(RUNNING.c.id).where(_within(RUNNING, scope)).order_by(RUNNING.c.started_at, RUNNING.c.id)
    return list(tx.execute(query.limit(TOLD)).scalars())


def outside(full: Iterable[str]) -> list[ColumnElement[bool]]:
    """Conditions for runs that name none of these scopes."""
    by_kind: dict[str, list[str]] = {}
    for scope in full:
        kind, _, value = scope.partition(":")
        by_kind.setdefault(kind, []).append(value)
    found: list[ColumnElement[bool]] = [RUN.c.rides] if "global" in by_kind else []
    if names := by_kind.get("pipeline"):
        found.append(RUN.c.pipeline_uuid.not_in(names))
    if ids := by_kind.get("schedule"):
        column = RUN.c.pipeline_schedule_id
        found.append(or_(column.is_(None), column.not_in([int(i) for i in ids])))
    if keys := by_kind.get("key"):
        found.append(or_(RUN.c.concurrency_key.is_(None), RUN.c.concurrency_key.not_in(keys)))
    return found


def full(caps: Mapping[str, int], used: Mapping[str, int]) -> set[str]:
    """The scopes that have no place left."""
    return {scope for scope, cap in caps.items() if used.get(scope, 0) >= cap}
