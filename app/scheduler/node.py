"""Who this process is, and which nodes of this host are provably dead."""

import os
import uuid
from datetime import datetime, timedelta
from pathlib import Path

from app import __version__, clock
from app.models.states import NodeState
from app.store import nodes
from app.store.db import Database
from app.store.nodes import NodeRow


def host_id() -> str:
    """Names this boot of this host and the pid namespace: only within it do pids mean anything."""
    boot = _read("/proc/sys/kernel/random/boot_id") or "no-boot-id"
    machine = _read("/etc/machine-id") or uuid.UUID(int=uuid.getnode()).hex
    try:
        namespace = str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:
        namespace = "no-namespace"
    return f"{machine}:{boot}:{namespace}"


def pid_started(pid: int) -> int | None:
    """Start of a process in clock ticks since boot (`/proc/<pid>/stat`, field 22); None when it is gone."""
    stat = _read(f"/proc/{pid}/stat")
    if stat is None:
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else int(fields[19])


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return None


def this_node(*, now: datetime, lease_s: float) -> NodeRow:
    """A new identity for this process."""
    pid = os.getpid()
    return NodeRow(
        id=str(uuid.uuid4()),
        host_id=host_id(),
        pid=pid,
        pid_started=pid_started(pid) or 0,
        version=__version__,
        state=NodeState.LIVE,
        started_at=now,
        lease_until=now + timedelta(seconds=lease_s),
    )


async def set_clock(db: Database) -> None:
    """Go by the database's clock, if it has its own: leases, ours and those of others, are judged by it."""
    asked = clock.steady()
    if (database_now := await db.read(nodes.database_clock)) is not None:
        clock.anchor(database_now, (asked + clock.steady()) / 2)


def provably_dead(found: list[NodeRow], me: NodeRow, *, only_one: bool) -> list[NodeRow]:
    """Nodes that cannot be alive: on this host, and their process is gone or is another one.

    `only_one`: the database lets in one service at a time (SQLite's file lock), so every other node is dead.
    """
    return [node for node in found if node.id != me.id and (only_one or _is_gone(node, me))]


def _is_gone(node: NodeRow, me: NodeRow) -> bool:
    return node.host_id == me.host_id and pid_started(node.pid) != node.pid_started
