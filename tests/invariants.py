"""The definition of correct: `violations` must be empty after every test that ran anything.

The queries, and what needs the frozen graph (I5), are in `app/store/invariants`; here is what needs the
timetable (I2b).
"""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from sqlalchemy import Connection

from app.errors import InvalidInput
from app.models.rows import ScheduleRow
from app.models.states import ScheduleStatus, ScheduleType
from app.pipelines.trigger_settings import ends as ends_of
from app.scheduler.catchup import COUNT_LIMIT
from app.scheduler.tables_of import table_of
from app.scheduler.timetable import Timetable
from app.store import invariants
from app.store.db import Database
from app.store.invariants import queries as queries
from app.store.sql import REVISION, SCHEDULE, SLOT

_US = timedelta(microseconds=1)


def find(tx: Connection) -> list[str]:
    """Every violated invariant with its first rows."""
    return invariants.find(tx) + _slots(tx)


async def assert_hold(db: Database) -> None:
    """Fail with the list of violated invariants."""
    found = await db.read(find)
    assert not found, "\n".join(found)


def _slots(tx: Connection) -> list[str]:
    """I2b, I2c: the ledger holds every slot of every revision once, and its gaps are counted right."""
    found: list[str] = []
    revisions = defaultdict(list)
    for row in tx.execute(REVISION.select().order_by(REVISION.c.revision)):
        revisions[row.schedule_id].append(row)
    ledger = defaultdict(list)
    for row in tx.execute(SLOT.select().order_by(SLOT.c.execution_date)):
        ledger[row.pipeline_schedule_id].append(row)
    for trigger in tx.execute(SCHEDULE.select()).all():
        found += _of_trigger(trigger, revisions[trigger.id], ledger[trigger.id])
    return found


def _of_trigger(trigger: Any, revisions: Sequence[Any], rows: Sequence[Any]) -> list[str]:
    found = [
        f"I2c trigger {trigger.id}: rows overlap at {after.execution_date}"
        for before, after in pairwise(rows)
        if (before.until or before.execution_date) >= after.execution_date
    ]
    if not revisions:  # written into the table by hand
        return found
    # A revision is in force up to the edit that made the next one, whose cursor may lie ahead (`start_time`).
    ends = [r.cursor_at and min(r.cursor_at, r.at) for r in revisions[1:]]
    for revision, end in zip(revisions, [*ends, trigger.cursor_at], strict=True):
        table = _table(trigger, revision)
        if table is None:
            continue
        last = ends_of(revision.settings or {})
        until = end if last is None or end is None else min(end, last)
        if revision.cursor_at is not None and until is not None:
            # Up to `pruned_until` rows may have been forgotten; after it each slot has one.
            since = max(revision.cursor_at, trigger.pruned_until or revision.cursor_at)
            found += _missing(trigger.id, table, since, until, rows)
        found += _miscounted(
            trigger.id, table, [row for row in rows if row.revision == revision.revision], last
        )
    return found


def _table(trigger: Any, revision: Any) -> Timetable | None:
    """What the trigger's slots were under a revision; None when they cannot be computed again."""
    said = ScheduleRow(
        id=trigger.id,
        name="",
        pipeline_uuid="",
        schedule_type=ScheduleType(trigger.schedule_type),
        status=ScheduleStatus.ACTIVE,
        created_at=trigger.created_at,
        updated_at=revision.at,
        schedule_interval=revision.schedule_interval,
        timezone=revision.timezone,
        start_time=revision.start_time,
        last_enabled_at=revision.last_enabled_at,
        settings=revision.settings or {},
    )
    try:
        table = table_of(said, week_start="sunday")
    except InvalidInput:
        return None
    return table if table.kind == "calendar" and said.schedule_type is ScheduleType.TIME else None


def _missing(
    trigger_id: int, table: Timetable, after: datetime, until: datetime, rows: Sequence[Any]
) -> list[str]:
    singles = {row.execution_date for row in rows}
    gaps = [(row.execution_date, row.until) for row in rows if row.until is not None]
    return [
        f"I2b trigger {trigger_id}: slot {slot} has no row"
        for slot in table.between(after, until, 5000)
        if slot not in singles and not any(a <= slot <= b for a, b in gaps)
    ]


def _miscounted(trigger_id: int, table: Timetable, rows: Sequence[Any], last: datetime | None) -> list[str]:
    """Rows that are no slot, or lie past the end, and gaps that say another number than they hold."""
    found = [
        f"I2d trigger {trigger_id}: {row.execution_date} is no slot of its revision {row.revision}"
        for row in rows
        if table.before(row.execution_date) != row.execution_date
        or (last is not None and (row.until or row.execution_date) > last)
    ]
    gaps = [row for row in rows if row.until is not None]
    return found + [
        f"I2e trigger {trigger_id}: the gap from {gap.execution_date} says {gap.slot_count}"
        for gap in gaps
        if table.count_between(gap.execution_date - _US, gap.until, COUNT_LIMIT) != gap.slot_count
    ]
