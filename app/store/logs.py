"""Log lines of runs: written in chunks by the journal, read here line by line.

A line's id is `<pos>.<index>` padded so that text order is time order; it is what cursors and SSE ids hold.
"""

import re

from sqlalchemy import Connection, select

from app.errors import FieldError, InvalidInput
from app.models.columns import from_us
from app.models.rows import LogRow
from app.store.db import loads
from app.store.sql import BLOCK, LOG

_ID = re.compile(r"(\d{1,19})\.(\d{1,6})")


def line_id(pos: int, index: int) -> str:
    """The id of the line `index` of the chunk at `pos`."""
    return f"{pos}.{index}"


def parse_id(value: str) -> tuple[int, int]:
    """(pos, index) of a line id. Raises InvalidInput for anything else."""
    match = _ID.fullmatch(value)
    if not match or int(match[1]) >= 2**63:
        raise InvalidInput(
            "not a log position",
            hint="use the id of a log line or the next_cursor of a page",
            errors=[FieldError("cursor", "not a log position")],
        )
    return int(match[1]), int(match[2])


def page(
    tx: Connection, run_id: int, *, after: str | None, limit: int, block_uuid: str | None = None
) -> list[LogRow]:
    """Up to `limit` lines after the line with id `after`, oldest first."""
    pos, index = parse_id(after) if after else (-1, 0)
    query = (
        select(LOG.c.pos, LOG.c.attempt, LOG.c.lines, BLOCK.c.block_uuid)
        .outerjoin(BLOCK, BLOCK.c.id == LOG.c.block_run_id)
        .where(LOG.c.pipeline_run_id == run_id, LOG.c.pos >= pos)
        .order_by(LOG.c.pos)
        .limit(limit + 1)  # a chunk has at least one line, and the first may be read up already
    )
    if block_uuid is not None:
        query = query.where(BLOCK.c.block_uuid == block_uuid)
    found: list[LogRow] = []
    for row in tx.execute(query):
        found += rows_of(
            row.pos, row.block_uuid, row.attempt, row.lines, skip=index + 1 if row.pos == pos else 0
        )
        if len(found) >= limit:
            break
    return found[:limit]


def rows_of(pos: int, block_uuid: str | None, attempt: int | None, lines: str, skip: int = 0) -> list[LogRow]:
    """The lines of one chunk."""
    return [
        LogRow(
            id=line_id(pos, i),
            at=from_us(at),
            block_uuid=block_uuid,
            attempt=attempt,
            stream=stream,
            level=level,
            text=text,
        )
        for i, (at, stream, level, text) in enumerate(loads(lines))
        if i >= skip
    ]
