"""Service processes: who lives, who is dead, and whether this database is ours to serve."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, func, select, text, update

from app.errors import StartRefused
from app.models.states import NODE_TRANSITIONS, NodeState, sources
from app.store.sql import JOURNAL, META, NODE, insert

_ALIVE = (NodeState.LIVE, NodeState.DRAINING)


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


def fence(tx: Connection, node_ids: list[str], *, now: datetime) -> list[str]:
    """Declare nodes dead. A negative journal position refuses whatever they may still want to flush."""
    return _leave(tx, node_ids, NodeState.FENCED, now=now)


def fence_expired(tx: Connection, *, now: datetime) -> list[str]:
    """Fence every node whose lease has run out."""
    late = select(NODE.c.id).where(NODE.c.state.in_(_ALIVE), NODE.c.lease_until < now)
    return fence(tx, list(tx.execute(late).scalars()), now=now)


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


def _leave(tx: Connection, node_ids: list[str], state: NodeState, *, now: datetime) -> list[str]:
    if not node_ids:
        return []
    ended = tx.execute(
        update(NODE)
        .where(NODE.c.id.in_(node_ids), NODE.c.state.in_(sources(NODE_TRANSITIONS, state)))
        .values(state=state, ended_at=now)
        .returning(NODE.c.id)
    )
    gone = list(ended.scalars())
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
