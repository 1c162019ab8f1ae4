"""Service processes: who lives, who is dead, and whether this database is ours to serve."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement, Connection, bindparam, delete, func, select, text, true, update

from app.errors import StartRefused
from app.models.states import NODE_TRANSITIONS, NodeState, sources
from app.store.sql import JOURNAL, META, NODE, insert

_ALIVE = (NodeState.LIVE, NodeState.DRAINING)
#: The row of the node `:node` while it may take on work, kept so until the transaction ends. KEY SHARE stands in the
#: way of a fencing (which locks FOR UPDATE first) and of nothing else: not of heartbeats.
IS_LIVE: Final = (
    select(NODE.c.id)
    .where(NODE.c.id == bindparam("node"), NODE.c.state == NodeState.LIVE)
    .with_for_update(read=True, key_share=True)
)


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A service process. `pid_started` in clock ticks since boot, as in /proc/<pid>/stat."""

    id: str
    host_id: str
    pid: int
    pid_started: int
    version: str
    state: NodeState
    started_at: datetime
    lease_until: datetime


def register(tx: Connection, node: NodeRow) -> None:
    """Make a node known; its lease counts from now, so there is no moment without one."""
    values = {name: getattr(node, name) for name in NodeRow.__slots__}
    if tx.dialect.name == "postgresql":  # a lease is given, renewed and judged by one clock: the database's
        values["lease_until"] = func.clock_timestamp() + (node.lease_until - node.started_at)
    tx.execute(NODE.insert().values(**values))
    tx.execute(JOURNAL.insert().values(node_id=node.id, seq=0))


def alive(tx: Connection) -> list[NodeRow]:
    """Every node that is neither stopped nor fenced."""
    columns = [NODE.c[name] for name in NodeRow.__slots__]
    rows = tx.execute(select(*columns).where(NODE.c.state.in_(_ALIVE)).order_by(NODE.c.started_at, NODE.c.id))
    return [NodeRow(**{**row._mapping, "state": NodeState(row.state)}) for row in rows]


def renew(tx: Connection, node_id: str, *, now: datetime, lease_s: float) -> bool:
    """Prolong the lease; False when somebody has fenced this node. Compares with the database's own clock."""
    until = now + timedelta(seconds=lease_s)
    found = tx.execute(
        update(NODE).where(NODE.c.id == node_id, NODE.c.state.in_(_ALIVE)).values(lease_until=until)
    )
    return found.rowcount == 1


def fence(
    tx: Connection, node_ids: list[str], *, now: datetime, still: ColumnElement[bool] | None = None
) -> list[str]:
    """Declare nodes dead, if that is `still` so. A negative journal position refuses what they may want to flush."""
    return _leave(tx, node_ids, NodeState.FENCED, now=now, still=still)


def fence_expired(tx: Connection, judge: str, *, before: datetime, now: datetime) -> list[str]:
    """Fence every node whose lease ended before then, by the word of a node that holds a lease itself.

    `before` is the judge's steady reckoning of the database's time. Where the database's own clock says less, that
    counts: neither of the two can condemn the living by a jump.
    """
    holds, ended = IS_LIVE, NODE.c.lease_until < before
    if tx.dialect.name == "postgresql":
        holds = holds.where(NODE.c.lease_until > func.clock_timestamp())
        ended = NODE.c.lease_until < func.least(before, func.clock_timestamp())
    if tx.execute(holds, {"node": judge}).first() is None:
        return []
    late = select(NODE.c.id).where(NODE.c.state.in_(_ALIVE), NODE.c.id != judge, ended)
    return fence(tx, list(tx.execute(late).scalars()), now=now, still=ended)


def is_live(tx: Connection, node_id: str) -> bool:
    """Whether a node may take on work; nobody fences it before this transaction ends."""
    return tx.execute(IS_LIVE, {"node": node_id}).first() is not None


def count_holders(tx: Connection) -> int:
    """Live nodes whose leases have not ended."""
    holders = select(func.count()).select_from(NODE).where(NODE.c.state == NodeState.LIVE)
    if tx.dialect.name == "postgresql":
        holders = holders.where(NODE.c.lease_until > func.clock_timestamp())
    return int(tx.execute(holders).scalar_one())


def drain(tx: Connection, node_id: str) -> None:
    """Say that a node takes nothing new."""
    tx.execute(
        update(NODE)
        .where(NODE.c.id == node_id, NODE.c.state.in_(sources(NODE_TRANSITIONS, NodeState.DRAINING)))
        .values(state=NodeState.DRAINING)
    )


def hand_over(tx: Connection, node_id: str, *, now: datetime) -> None:
    """End a node in peace: what it still owns is free for others from this commit on."""
    _leave(tx, [node_id], NodeState.STOPPED, now=now)


def _leave(
    tx: Connection,
    node_ids: list[str],
    state: NodeState,
    *,
    now: datetime,
    still: ColumnElement[bool] | None = None,
) -> list[str]:
    if not node_ids:
        return []
    may_leave = (
        NODE.c.id.in_(node_ids),
        NODE.c.state.in_(sources(NODE_TRANSITIONS, state)),
        true() if still is None else still,
    )
    # FOR UPDATE waits for whatever such a node is claiming in this instant (`is_live`), and what it claims then is
    # left to its heirs. It also looks at the lease anew: one that was renewed meanwhile is not ended.
    locked = select(NODE.c.id).where(*may_leave).order_by(NODE.c.id).with_for_update()
    gone = list(tx.execute(locked).scalars())
    tx.execute(update(NODE).where(NODE.c.id.in_(gone)).values(state=state, ended_at=now))
    tx.execute(update(JOURNAL).where(JOURNAL.c.node_id.in_(gone)).values(seq=-1))
    return gone


def forget(tx: Connection, *, before: datetime) -> None:
    """Drop nodes that ended before then and that no run names any more."""
    unused = ~select(1).where(text("pipeline_run.owner = node.id")).select_from(text("pipeline_run")).exists()
    old = select(NODE.c.id).where(NODE.c.ended_at < before, unused)
    tx.execute(delete(JOURNAL).where(JOURNAL.c.node_id.in_(old)))
    tx.execute(delete(NODE).where(NODE.c.ended_at < before, unused))


def database_clock(tx: Connection) -> datetime | None:
    """The database's own time, or None where it has none of its own (SQLite lives in our process)."""
    if tx.dialect.name != "postgresql":
        return None
    return tx.execute(select(func.clock_timestamp())).scalar_one()  # type: ignore[no-any-return]


def bind_project(tx: Connection, project_uuid: str) -> bool:
    """Tie the database to one project; True the first time. Raises StartRefused when it serves another already."""
    made = tx.execute(
        insert(tx, META)
        .values(key="project_uuid", value=project_uuid)
        .on_conflict_do_nothing(index_elements=[META.c.key])
        .returning(META.c.key)
    ).first()
    bound = tx.execute(select(META.c.value).where(META.c.key == "project_uuid")).scalar_one()
    if bound != project_uuid:
        raise StartRefused(
            f"This database belongs to the project '{bound}'; this one is '{project_uuid}'.",
            hint="Give each project a database of its own. Is it the same one with a new name? Then give it back the "
            f"old: project_uuid: {bound} in its metadata.yaml.",
        )
    return made is not None
