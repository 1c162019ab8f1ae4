"""The definition of correct: `violations` must be empty after every test that ran anything.

The queries are in `invariants.sql`; here are those that need the frozen graph (I5) or the timetable (I2b).
"""

import re
from itertools import pairwise
from pathlib import Path

from sqlalchemy import Connection, text

from app.models.columns import from_us
from app.models.pipeline import from_definition
from app.scheduler import timetable
from app.store.db import Database

_FILE = Path(__file__).with_name("invariants.sql")


def queries() -> dict[str, str]:
    """Invariant -> query, in the order of the file."""
    parts = re.split(r"^-- (I\d+\w* .*)$", _FILE.read_text(encoding="utf-8"), flags=re.M)
    return {name: body.strip().rstrip(";") for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def find(tx: Connection) -> list[str]:
    """Every violated invariant with its first rows."""
    found = []
    for name, query in queries().items():
        if rows := tx.execute(text(query)).fetchmany(3):
            found.append(f"{name}: {[tuple(row) for row in rows]}")
    return found + _graph(tx) + _slots(tx)


async def assert_hold(db: Database) -> None:
    """Fail with the list of violated invariants."""
    found = await db.read(find)
    assert not found, "\n".join(found)


def _graph(tx: Connection) -> list[str]:
    """I5: no attempt starts before all upstreams have ended; none at all below one that did not satisfy."""
    rows = tx.execute(
        text(
            "SELECT b.pipeline_run_id AS run, r.pipeline_hash AS hash, b.block_uuid AS uuid, b.status AS status,"
            " min(a.s_seq) AS first_start, max(a.e_seq) AS last_end, b.carried_from AS carried"
            " FROM block_run b JOIN pipeline_run r ON r.id = b.pipeline_run_id"
            " LEFT JOIN block_attempt a ON a.block_run_id = b.id"
            " GROUP BY b.pipeline_run_id, r.pipeline_hash, b.block_uuid, b.status, b.carried_from"
        )
    ).all()
    versions = tx.execute(text("SELECT hash, definition FROM pipeline_version")).all()
    graphs = {row.hash: from_definition(row.definition) for row in versions}
    by_block = {(row.run, row.uuid): row for row in rows}
    found = []
    for row in rows:
        for upstream in graphs[row.hash].by_uuid[row.uuid].upstream:
            up = by_block[row.run, upstream]
            if row.first_start is None:
                continue
            if up.status not in ("completed", "skipped") or (up.last_end or 0) > row.first_start:
                found.append(
                    f"I5 run {row.run}: '{row.uuid}' started before '{upstream}' ({up.status}) was done"
                )
    return found


def _time(value: object) -> object:
    return from_us(value) if isinstance(value, int) else value


def _slots(tx: Connection) -> list[str]:
    """I2b: every slot of every revision of a trigger up to its cursor has its row, or lies in a counted gap."""
    found: list[str] = []
    for trigger in tx.execute(
        text(
            "SELECT id, cursor_at, week FROM (SELECT id, cursor_at, 'sunday' AS week FROM pipeline_schedule) s"
        )
    ).all():
        revisions = tx.execute(
            text(
                "SELECT schedule_interval AS interval, timezone AS zone, status, cursor_at, at FROM schedule_revision"
                " WHERE schedule_id = :id ORDER BY revision"
            ),
            {"id": trigger.id},
        ).all()
        rows = tx.execute(
            text(
                "SELECT execution_date, until, slot_count FROM schedule_slot WHERE pipeline_schedule_id = :id"
                " ORDER BY execution_date"
            ),
            {"id": trigger.id},
        ).all()
        # A revision is in force up to the edit that made the next one, whose cursor may lie ahead (`start_time`).
        ends = [r.cursor_at and min(r.cursor_at, r.at) for r in revisions[1:]]
        ends.append(trigger.cursor_at)
        for revision, end in zip(revisions, ends, strict=True):
            found += _of_revision(trigger.id, revision, end, rows)
        found += [
            f"I2c trigger {trigger.id}: rows overlap at {_time(after.execution_date)}"
            for before, after in pairwise(rows)
            if before.until is not None and _time(before.until) >= _time(after.execution_date)  # type: ignore[operator]
        ]
    return found


def _of_revision(trigger_id: int, revision: object, end: object, rows: list[object]) -> list[str]:
    interval, zone = revision.interval, revision.zone  # type: ignore[attr-defined]
    begin, until = _time(revision.cursor_at), _time(end)  # type: ignore[attr-defined]
    if not interval or begin is None or until is None or revision.status != "active":  # type: ignore[attr-defined]
        return []
    table = timetable.parse(interval, zone or "UTC")
    if table.kind != "calendar":
        return []
    singles = {_time(row.execution_date) for row in rows}  # type: ignore[attr-defined]
    gaps = [
        (_time(row.execution_date), _time(row.until))  # type: ignore[attr-defined]
        for row in rows
        if row.until is not None  # type: ignore[attr-defined]
    ]
    due = table.between(begin, until, 5000)  # type: ignore[arg-type]
    return [
        f"I2b trigger {trigger_id}: slot {slot} has no row"
        for slot in due
        if slot not in singles and not any(a <= slot <= b for a, b in gaps)  # type: ignore[operator]
    ]
