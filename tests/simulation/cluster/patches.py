"""What of the service a simulation replaces: what it has of the host, and what a shared server does for it."""

import importlib
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any
from unittest.mock import patch
from uuid import UUID

import structlog

from app import clock
from app.events import Bus, Event, Subscription
from app.scheduler import engine, membership, node
from app.store import nodes
from app.store.nodes import NodeRow
from app.store.sql import NODE
from tests.simulation.cluster import bugs
from tests.simulation.cluster.journal import SharedJournal
from tests.simulation.cluster.loop import PROCESS
from tests.simulation.cluster.parts import AlarmClock, KeptLease, Voice, WatchedMembership
from tests.simulation.cluster.server import SharedDatabase


class CheckedBus(Bus):
    """A bus on which nothing may be told before it is on disk."""

    def publish(self, *events: Event) -> None:
        """See `Bus.publish`."""
        process = PROCESS.get()
        if process is not None and not process.dead:
            for event in events:
                process.world.checks.told(event, process)
        super().publish(*events)


def _this_node(*, now: datetime, lease_s: float) -> NodeRow:
    process = PROCESS.get()
    made = node.this_node(now=now, lease_s=lease_s)
    return replace(made, host_id=process.host, pid=process.pid, pid_started=process.pid)


def _fence_expired(tx: Any, judge: str, *, before: datetime, now: datetime) -> list[str]:
    """As on Postgres, where the server's own clock has a say, too."""
    shown = clock.now()
    holds = NODE.select().where(NODE.c.id == judge, NODE.c.lease_until > shown)
    return _REAL_FENCE(tx, judge, before=min(before, shown), now=now) if tx.execute(holds).first() else []


_REAL_FENCE = nodes.fence_expired


@contextmanager
def in_force(world: Any, new_id: Callable[[], UUID]) -> Iterator[None]:
    """Let the service run in this world."""

    def open_database(url: str) -> SharedDatabase:
        return SharedDatabase(world.server, url)

    replaced: tuple[tuple[Any, str, Any], ...] = (
        (engine, "open_database", open_database),
        (engine, "backend_for", SharedJournal),
        (engine, "voice_of", lambda db, node_id: Voice),
        (engine, "Timers", AlarmClock),
        (engine, "Membership", WatchedMembership),
        (engine, "Bus", CheckedBus),
        (engine.migrate, "upgrade", lambda url: None),
        (membership, "Lease", KeptLease),
        (membership, "this_node", _this_node),
        (node, "pid_started", world.pid_started),
        (node.uuid, "uuid4", new_id),
        (nodes, "fence_expired", _fence_expired),
        (nodes, "database_clock", lambda tx: clock.now()),
        # A set of them must not be in the order of their addresses.
        (Subscription, "__hash__", lambda one: one.run_id or 0),
    )
    _plain_logs()
    with ExitStack() as stack:
        for place, name, instead in replaced:
            stack.enter_context(patch.object(place, name, instead))
        if world.bug is not None:
            for path, name, instead in bugs.BUGS[world.bug].patches():
                module, _, inner = path.partition(":")
                place = importlib.import_module(module)
                stack.enter_context(patch.object(getattr(place, inner) if inner else place, name, instead))
        yield


def _plain_logs() -> None:
    structlog.configure(
        processors=[structlog.stdlib.PositionalArgumentsFormatter(), structlog.stdlib.render_to_log_kwargs],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    logging.getLogger("app").setLevel(logging.WARNING)
