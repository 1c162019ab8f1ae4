"""What rows alone prove about replicas: nothing twice, no writes of the dead, no waiting beside a free place."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import Connection, text


def asked_once(tx: Connection, acknowledged: set[int]) -> list[str]:
    """The runs that were asked for over HTTP are those that were acknowledged: none lost, none twice."""
    query = "SELECT id FROM pipeline_run WHERE parent_run_id IS NULL AND cause = 'api'"
    there = set(tx.execute(text(query)).scalars())
    wrong = []
    if lost := acknowledged - there:
        wrong.append(f"acknowledged and not there: {sorted(lost)[:10]}")
    if more := there - acknowledged:
        wrong.append(f"made twice, or never acknowledged: {sorted(more)[:10]}")
    return wrong


def children(tx: Connection) -> list[str]:
    """A block that starts a run and waits for it starts one, however often it is begun anew."""
    query = (
        "SELECT parent_run_id, count(*) FROM pipeline_run WHERE parent_run_id IS NOT NULL"
        " GROUP BY 1 HAVING count(*) > 1 ORDER BY 1 LIMIT 10"
    )
    return [f"run {parent} has {count} children" for parent, count in tx.execute(text(query))]


def zombies(tx: Connection) -> list[str]:
    """Nothing is stamped by a node after it was fenced: no start, no end of an attempt, no end of a run."""
    ended = (
        "SELECT 'attempt', a.block_run_id, a.attempt FROM block_attempt a JOIN node n ON n.id = a.node_id"
        " WHERE n.state = 'fenced' AND (a.started_at > n.ended_at"
        "  OR (a.ended_at > n.ended_at AND a.outcome NOT IN ('lost', 'cancelled')))"
        " UNION ALL SELECT 'run', r.id, r.epoch FROM pipeline_run r JOIN node n ON n.id = r.owner"
        " WHERE n.state = 'fenced' AND (r.started_at > n.ended_at OR r.completed_at > n.ended_at)"
    )
    return [
        f"written by a fenced node: {kind} {first}.{second}"
        for kind, first, second in tx.execute(text(ended))
    ]


def node_of(tx: Connection, where: tuple[str, int]) -> str | None:
    """The living node of a process, by the end of its host's name and its pid there."""
    query = (
        "SELECT id FROM node WHERE state IN ('live', 'draining') AND host_id LIKE :host AND pid = :pid"
        " ORDER BY started_at DESC LIMIT 1"
    )
    return tx.execute(text(query), {"host": f"%{where[0]}", "pid": where[1]}).scalar()


def state_of(tx: Connection, node: str) -> str:
    return str(tx.execute(text("SELECT state FROM node WHERE id = :id"), {"id": node}).scalar_one())


def busy(tx: Connection, node: str) -> int:
    """How many blocks a node runs at this moment."""
    query = (
        "SELECT count(*) FROM block_attempt a JOIN block_run b ON b.id = a.block_run_id"
        " WHERE a.node_id = :id AND a.ended_at IS NULL AND b.wake_at IS NULL"
    )
    return int(tx.execute(text(query), {"id": node}).scalar_one())


def taken_over(tx: Connection, nodes: Mapping[str, datetime]) -> list[tuple[str, datetime]]:
    """Of nodes that died: when each attempt that was open then was called lost."""
    query = text("SELECT node_id, ended_at FROM block_attempt WHERE outcome = 'lost'")
    return [(node, at) for node, at in tx.execute(query) if node in nodes]


def begun(tx: Connection) -> dict[str, datetime]:
    """When each node began."""
    return dict(tuple(row) for row in tx.execute(text("SELECT id, started_at FROM node")))


def left_with(tx: Connection, nodes: Mapping[str, datetime]) -> list[str]:
    """Runs that a dead node still owns."""
    query = text("SELECT id, owner FROM pipeline_run WHERE status = 'running'")
    return [f"run {run} still belongs to a dead node" for run, owner in tx.execute(query) if owner in nodes]


def most_at_once(tx: Connection, pipeline: str) -> int:
    """How many runs of a pipeline ran at once at most, by sequence."""
    query = (
        "SELECT max(n) FROM (SELECT sum(d) OVER (ORDER BY q) AS n FROM ("
        " SELECT s_seq AS q, 1 AS d FROM pipeline_run WHERE pipeline_uuid = :p AND s_seq IS NOT NULL UNION ALL"
        " SELECT e_seq, -1 FROM pipeline_run WHERE pipeline_uuid = :p AND e_seq IS NOT NULL) e) x"
    )
    return int(tx.execute(text(query), {"p": pipeline}).scalar() or 0)


def idle_beside_a_queue(tx: Connection, pipeline: str, cap: int) -> list[float]:
    """Every stretch, in seconds, in which a run of the pipeline waited although fewer than `cap` ran.

    By the stamps of the rows: a run waits from `created_at` to `started_at` and runs from there to
    `completed_at`. A stretch ends when the place is taken or the queue is empty.
    """
    query = text("SELECT created_at, started_at, completed_at FROM pipeline_run WHERE pipeline_uuid = :p")
    steps: list[tuple[datetime, int, int]] = []
    for created, started, completed in tx.execute(query, {"p": pipeline}):
        steps += [(created, 1, 0), (started, -1, 1), (completed, 0, -1)]
    waiting = running = 0
    since: datetime | None = None
    stretches = []
    for at, waits, runs in sorted(steps):
        waiting, running = waiting + waits, running + runs
        idle = waiting > 0 and running < cap
        if idle and since is None:
            since = at
        elif not idle and since is not None:
            stretches.append((at - since).total_seconds())
            since = None
    return stretches


def runs_per_node(tx: Connection) -> list[int]:
    """How many runs each node owned last."""
    query = "SELECT count(*) FROM pipeline_run WHERE owner IS NOT NULL GROUP BY owner ORDER BY 1"
    return list(tx.execute(text(query)).scalars())
