"""Faults put into the service on purpose, each by a few patches: the simulation must find every one of them.

Where a constraint or a second fence of the service would catch the fault by itself, it is taken away, too: what is
tested is whether the checks of the simulation see it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, select, update

from app import clock
from app.events import Event
from app.models.states import RunStatus
from app.scheduler.admission import admissible
from app.scheduler.ticker import Ticker
from app.scheduler.writing import Writing
from app.store import admit as admitting
from app.store import journal_sqlite
from app.store.admit import Claimer
from app.store.sql import LIMIT, RUN, SCHEDULE, SLOT, insert
from app.store.units import Unit, Verdict

#: (module, or module:class; name; what stands there instead)
Patch = tuple[str, str, Any]


@dataclass(frozen=True)
class Bug:
    """What is wrong, and how it is put in."""

    about: str
    patches: Callable[[], list[Patch]]


def _no_fence() -> list[Patch]:
    lock = journal_sqlite._LOCK.replace("owner=?", "?<>''").replace("epoch=?", "?>=0")

    def flush(tx: Any, node_id: str, expected: int, units: Sequence[Unit]) -> Any:
        return journal_sqlite.flush(tx, node_id, units)

    def mine(run_id: int, node_id: str, epoch: int) -> tuple[Any, ...]:
        return RUN.c.id == run_id, RUN.c.status == RunStatus.RUNNING

    return [
        ("app.store.journal_sqlite", "_LOCK", lock),
        ("app.store.ownership", "_mine", mine),
        ("tests.simulation.cluster.journal", "_flush", flush),
    ]


_MOVE = (
    update(SCHEDULE)
    .where(SCHEDULE.c.id == bindparam("of"))
    .values(cursor_at=bindparam("cursor"), next_fire_at=bindparam("look"))
)


def _check_then_insert() -> list[Patch]:
    real_run = Ticker._run

    def advance(tx: Any, moves: Iterable[Any]) -> set[int]:
        rows = [{"of": row.id, "cursor": cursor, "look": look} for row, cursor, look in moves]
        if rows:
            tx.execute(_MOVE, rows)
        return {row["of"] for row in rows}

    async def run(self: Ticker, *args: Any) -> Any:
        new = await real_run(self, *args)
        without = {key: value for key, value in new.values.items() if not key.startswith("dedupe_")}
        return replace(new, values=without)

    def write_all_slots(tx: Any, decided: Iterable[Any], *, node_id: str, now: datetime) -> None:
        for schedule, slot in decided:
            values = {
                "pipeline_schedule_id": schedule.id,
                "execution_date": slot.execution_date,
                "outcome": slot.outcome,
                "reason": slot.reason,
                "pipeline_run_id": slot.pipeline_run_id,
                "until": slot.until,
                "slot_count": slot.count,
                "revision": schedule.revision,
                "decided_by": node_id,
                "decided_at": now,
            }
            tx.execute(insert(tx, SLOT).values(**values).on_conflict_do_nothing())

    return [
        ("app.store.slots", "advance", advance),
        ("app.store.slots", "write_all_slots", write_all_slots),
        ("app.scheduler.ticker:Ticker", "_run", run),
    ]


def _room(tx: Any) -> Mapping[str, int]:
    used = admitting.in_use(tx)
    return {row.scope: row.cap - used[row.scope] for row in tx.execute(select(LIMIT.c.scope, LIMIT.c.cap))}


def _start_by(tx: Any, room: Mapping[str, int], claimer: Claimer, *, now: datetime) -> list[Any]:
    waiting = [admitting._waiting_run(row) for row in admitting._waiting(tx, set(), None, admitting.WINDOW)]
    return admitting._claim(tx, claimer.decide(waiting, room, claimer.free), claimer, now=now)


def _count_outside() -> list[Patch]:
    async def admit(self: Any) -> list[Any]:
        async with self._fleet.claiming:
            fleet = self._fleet
            claimer = Claimer(fleet.node_id, fleet.free if self.open else 0, admissible)
            room = await fleet.db.read(_room)
            admitted = await fleet.db.write(_start_by, room, claimer, now=clock.now())
            for run in admitted:
                fleet.wake(run.id)
            return admitted  # type: ignore[no-any-return]

    return [("app.scheduler.intake:Intake", "admit", admit)]


def _early_event() -> list[Patch]:
    real_submit = Writing.submit

    async def submit(self: Writing, unit: Unit, *events: Event) -> Verdict:
        self.publish(*events)
        return await real_submit(self, unit)

    return [("app.scheduler.writing:Writing", "submit", submit)]


def _no_poll() -> list[Patch]:
    async def poll(self: Any) -> None:
        """Trust in words."""

    return [("app.scheduler.passes:Passes", "poll", poll), ("app.scheduler.wakeups", "LOOK_S", 1e6)]


BUGS: dict[str, Bug] = {
    "no-fence": Bug("what a node writes about a run is not checked against owner and epoch", _no_fence),
    "check-then-insert": Bug(
        "a tick looks whether a slot is due, then makes its run anyway", _check_then_insert
    ),
    "count-outside": Bug(
        "the runs of a limit are counted in another transaction than they start in", _count_outside
    ),
    "early-event": Bug("an event goes out before its transaction has committed", _early_event),
    "no-poll": Bug("nothing stands behind a wake-up that is lost", _no_poll),
}
