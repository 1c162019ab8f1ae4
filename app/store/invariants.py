"""The definition of correct, for any database of either kind: each invariant must find no row.

The queries are in `invariants.sql`, those that need the frozen graph of a run are here. What needs a timetable
is the tests' own, since it lies above the store.
"""

import re
from pathlib import Path

from sqlalchemy import Connection, select, text

from app.models import rules
from app.models.pipeline import from_definition
from app.models.states import BlockStatus
from app.store.scopes import scopes_of
from app.store.sql import HISTORY, RUN

_FILE = Path(__file__).with_name("invariants.sql")
#: Violations shown of one invariant.
_SHOWN = 3


def queries() -> dict[str, str]:
    """Invariant -> query, in the order of the file."""
    parts = re.split(r"^-- (I\d+\w* .*)$", _FILE.read_text(encoding="utf-8"), flags=re.M)
    return {name: body.strip().rstrip(";") for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def find(tx: Connection) -> list[str]:
    """Every violated invariant with its first rows; empty when all hold."""
    found = []
    for name, query in queries().items():
        if rows := tx.execute(text(query)).fetchmany(_SHOWN):
            found.append(f"{name}: {[tuple(row) for row in rows]}")
    return found + _graph(tx) + _limits(tx)


def _graph(tx: Connection) -> list[str]:
    """I5: no attempt starts before its trigger rule is met, by the sequence of starts and ends."""
    rows = tx.execute(
        text(
            "SELECT b.pipeline_run_id AS run, r.pipeline_hash AS hash, b.block_uuid AS uuid, b.status AS status,"
            " min(a.s_seq) AS first_start, max(a.e_seq) AS last_end, b.carried_from AS carried"
            " FROM block_run b JOIN pipeline_run r ON r.id = b.pipeline_run_id"
            " LEFT JOIN block_attempt a ON a.block_run_id = b.id AND a.kind = 'block'"
            " WHERE b.parent_id IS NULL"
            " GROUP BY b.pipeline_run_id, r.pipeline_hash, b.block_uuid, b.status, b.carried_from"
        )
    ).all()
    versions = tx.execute(text("SELECT hash, definition FROM pipeline_version")).all()
    graphs = {row.hash: from_definition(row.definition) for row in versions}
    by_block = {(row.run, row.uuid): row for row in rows}
    found = []
    for row in rows:
        if row.first_start is None:
            continue
        block = graphs[row.hash].by_uuid[row.uuid]
        ups = [by_block[row.run, upstream] for upstream in block.upstream]
        # What had not ended when the block started did not count for it then.
        then = {up.uuid: up.status if (up.last_end or 0) < row.first_start else "running" for up in ups}
        if rules.may_start(block, {uuid: BlockStatus(status) for uuid, status in then.items()}) is not True:
            found.append(f"I5 run {row.run}: '{row.uuid}' started though its upstreams were {then}")
    return found


def _limits(tx: Connection) -> list[str]:
    """I14: no run starts while its scope is full, by the limit that held at that point of the sequence.

    A limit that is lowered ends nothing: it is the starts that are judged.
    """
    changes = tx.execute(select(HISTORY.c.seq, HISTORY.c.scope, HISTORY.c.cap)).all()
    if not changes:
        return []
    limited = {change.scope for change in changes}
    events: list[tuple[int, str, str, int | None]] = [(c.seq, "cap", c.scope, c.cap) for c in changes]
    for run in tx.execute(select(*_LIMITED_BY).where(RUN.c.s_seq.is_not(None))):
        names = scopes_of(run.pipeline_uuid, run.pipeline_schedule_id, run.concurrency_key, run.rides)
        for scope in limited.intersection(names):
            events.append((run.s_seq, "start", scope, run.id))
            if run.e_seq is not None:
                events.append((run.e_seq, "end", scope, run.id))
    caps: dict[str, int | None] = {}
    counts = dict.fromkeys(limited, 0)
    found = []
    for seq, what, scope, value in sorted(events, key=lambda event: event[0]):
        if what == "cap":
            caps[scope] = value
            continue
        counts[scope] += 1 if what == "start" else -1
        cap = caps.get(scope)
        if what == "start" and cap is not None and counts[scope] > cap:
            found.append(f"I14 run {value} started at {seq} as number {counts[scope]} in '{scope}' of {cap}")
    return found[:_SHOWN]


_LIMITED_BY = (
    RUN.c.id,
    RUN.c.s_seq,
    RUN.c.e_seq,
    RUN.c.pipeline_uuid,
    RUN.c.pipeline_schedule_id,
    RUN.c.concurrency_key,
    RUN.c.rides,
)
