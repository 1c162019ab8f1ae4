"""Triggers as tests make them, let them grow old and look at them."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from app import clock
from app.models.rows import ScheduleRow
from app.scheduler.engine import Engine
from app.scheduler.triggers import TriggerDraft
from app.store import ledger as slot_ledger
from app.store import schedules
from app.store.db import Database, T, Tx
from app.store.sql import REVISION, SCHEDULE


async def make(engine: Engine, name: str = "t", **values: Any) -> ScheduleRow:
    given = {"schedule_interval": "@hourly", "status": "active", **values}
    if given.get("schedule_type") == "api":
        del given["schedule_interval"]
    row, _token = await engine.triggers.create(TriggerDraft(pipeline_uuid="etl", name=name, **given))
    return row


def hold(later: timedelta = timedelta(0)) -> datetime:
    """Let the time stand still until the test ends: no hour turns before it has counted the slots. The time."""
    now = clock.now() + later
    clock.use(lambda: now)
    return now


async def age(engine: Engine, hours: float = 0, **back: float) -> None:
    """As if every trigger had been made, and last been looked at, so long ago. From now on the time stands still."""
    then = hold() - timedelta(hours=hours, **back)

    def write(tx: Tx) -> None:
        tx.execute(SCHEDULE.update().values(cursor_at=then))
        tx.execute(SCHEDULE.update().where(SCHEDULE.c.status == "active").values(next_fire_at=then))
        tx.execute(REVISION.update().values(cursor_at=then, at=then))

    await engine.db.write(write)


async def ledger(engine: Engine, schedule_id: int) -> list[tuple[str, str | None, int]]:
    """What became of the slots of a trigger, the oldest first."""
    found = await engine.db.read(slot_ledger.page, schedule_id, limit=200)
    return [(s.outcome.value, s.reason, s.count) for s in reversed(found)]


async def look(engine: Engine, schedule_id: int) -> ScheduleRow:
    row = await engine.db.read(schedules.get, schedule_id)
    assert row is not None
    return row


class Late:
    """A database whose transactions begin an hour after they were asked for: so long they waited for a lock."""

    def __init__(self, db: Database) -> None:
        self._db, self.read = db, db.read

    async def write(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        hold(timedelta(hours=1))
        return await self._db.write(fn, *args, **kwargs)
