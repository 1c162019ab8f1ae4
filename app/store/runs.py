"""Reading runs: what the doors show and what a node needs to drive one."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, bindparam, func, select

from app.models.rows import AttemptRow, BlockRow, RunRow
from app.models.states import RUN_TERMINAL, BlockStatus, Cause, Outcome, RunStatus
from app.store.db import loads
from app.store.pruning import GONE
from app.store.scopes import RUNNING
from app.store.sql import ATTEMPT, BLOCK, LOG, RUN, VERSION, in_chunks

RUN_NAMES = tuple(field.name for field in fields(RunRow))
RUN_COLUMNS = tuple(RUN.c[name] for name in RUN_NAMES)
_ATTEMPT_NAMES = tuple(field.name for field in fields(AttemptRow))


def run_row(row: Sequence[Any]) -> RunRow:
    """A RunRow of a row that begins with RUN_COLUMNS."""
    values = dict(zip(RUN_NAMES, row, strict=False))
    return RunRow(**{**values, "cause": Cause(values["cause"]), "status": RunStatus(values["status"])})


def get(tx: Connection, run_id: int) -> RunRow | None:
    """One run, without its blocks."""
    row = tx.execute(select(*RUN_COLUMNS).where(RUN.c.id == run_id)).first()
    return run_row(row) if row else None


#: From (included) and before (excluded); None is unbounded.
Span = tuple[datetime | None, datetime | None]
ANY_TIME: Span = (None, None)


def page(
    tx: Connection,
    *,
    limit: int,
    before_id: int | None = None,
    pipeline_uuid: Sequence[str] | None = None,
    status: Sequence[str] | None = None,
    schedule_id: Sequence[int] | None = None,
    cause: Sequence[str] | None = None,
    passed_sla: bool | None = None,
    created: Span = ANY_TIME,
    dated: Span = ANY_TIME,
) -> list[RunRow]:
    """Runs that pass every filter, newest first; `before_id` continues a page.

    `created` and `dated` bound the time of creation and the execution date: from, and before.
    """
    query: Select[Any] = select(*RUN_COLUMNS).order_by(RUN.c.id.desc()).limit(limit)
    if before_id is not None:
        query = query.where(RUN.c.id < before_id)
    filters = (
        (RUN.c.pipeline_uuid, pipeline_uuid),
        (RUN.c.status, status),
        (RUN.c.pipeline_schedule_id, schedule_id),
        (RUN.c.cause, cause),
    )
    for column, wanted in filters:
        if wanted:
            query = query.where(column.in_(wanted))
    if passed_sla is not None:  # by the column that has an index
        query = query.where(RUN.c.sla_passed_at.is_not(None) if passed_sla else RUN.c.sla_passed_at.is_(None))
    for column, (since, before) in ((RUN.c.created_at, created), (RUN.c.execution_date, dated)):
        if since is not None:
            query = query.where(column >= since)
        if before is not None:
            query = query.where(column < before)
    return [run_row(row) for row in tx.execute(query)]


def blocks(tx: Connection, run_id: int, attempts: bool = True) -> list[BlockRow]:
    """The block runs of a run in pipeline order, with their attempts if asked for."""
    order = (BLOCK.c.position, func.coalesce(BLOCK.c.item_index, -1))
    rows = tx.execute(select(BLOCK).where(BLOCK.c.pipeline_run_id == run_id).order_by(*order))
    tries = _attempts(tx, BLOCK.c.pipeline_run_id == run_id) if attempts else {}
    return [_block_row(row, tuple(tries.get(row.id, ()))) for row in rows]


def templates(tx: Connection, run_id: int) -> tuple[list[BlockRow], dict[int, dict[str, int]]]:
    """The block runs of a run but children, with their attempts, and how many children stand where: id -> status."""
    query = select(BLOCK).where(BLOCK.c.pipeline_run_id == run_id, BLOCK.c.parent_id.is_(None))
    rows = tx.execute(query.order_by(BLOCK.c.position)).all()
    tries = _attempts(tx, BLOCK.c.pipeline_run_id == run_id, BLOCK.c.parent_id.is_(None))
    counted = (
        select(BLOCK.c.parent_id, BLOCK.c.status, func.count().label("many"))
        .where(BLOCK.c.pipeline_run_id == run_id, BLOCK.c.parent_id.is_not(None))
        .group_by(BLOCK.c.parent_id, BLOCK.c.status)
    )
    families: dict[int, dict[str, int]] = {}
    if any(row.children is not None for row in rows):
        for parent, status, many in tx.execute(counted):
            families.setdefault(parent, {})[status] = many
    return [_block_row(row, tuple(tries.get(row.id, ()))) for row in rows], families


def block_page(
    tx: Connection,
    run_id: int,
    *,
    parent_id: int | None,
    status: Sequence[str] | None,
    limit: int,
    offset: int,
) -> list[BlockRow]:
    """Block runs of a run in pipeline order, or children of one in the order of their items, with their attempts."""
    below = BLOCK.c.parent_id.is_(None) if parent_id is None else BLOCK.c.parent_id == parent_id
    query = select(BLOCK).where(BLOCK.c.pipeline_run_id == run_id, below)
    if status:
        query = query.where(BLOCK.c.status.in_(status))
    order = BLOCK.c.position if parent_id is None else BLOCK.c.item_index
    rows = tx.execute(query.order_by(order).limit(limit).offset(offset)).all()
    tries = _attempts(tx, BLOCK.c.id.in_([row.id for row in rows]))
    return [_block_row(row, tuple(tries.get(row.id, ()))) for row in rows]


def block(tx: Connection, block_run_id: int) -> BlockRow | None:
    """One block run with its attempts."""
    row = tx.execute(select(BLOCK).where(BLOCK.c.id == block_run_id)).first()
    if row is None:
        return None
    return _block_row(row, tuple(_attempts(tx, BLOCK.c.id == row.id).get(row.id, ())))


def _block_row(row: Any, attempts: tuple[AttemptRow, ...]) -> BlockRow:
    return BlockRow(
        id=row.id,
        pipeline_run_id=row.pipeline_run_id,
        block_uuid=row.block_uuid,
        status=BlockStatus(row.status),
        status_reason=row.status_reason,
        attempt=row.attempt,
        max_attempts=row.max_attempts,
        started_at=row.started_at,
        completed_at=row.completed_at,
        wake_at=row.wake_at,
        outputs=loads(row.outputs) if row.outputs else (),
        error=row.error,
        metrics=row.metrics or {},
        parent_id=row.parent_id,
        item_index=row.item_index,
        children=row.children,
        carried_from=row.carried_from,
        attempts=attempts,
    )


def _attempts(tx: Connection, *of: ColumnElement[bool]) -> dict[int, list[AttemptRow]]:
    columns = [ATTEMPT.c[name] for name in _ATTEMPT_NAMES]
    query = (
        select(ATTEMPT.c.block_run_id, *columns)
        .join(BLOCK, BLOCK.c.id == ATTEMPT.c.block_run_id)
        .where(*of)
        .order_by(ATTEMPT.c.block_run_id, ATTEMPT.c.attempt)
    )
    found: dict[int, list[AttemptRow]] = {}
    for row in tx.execute(query):
        values = dict(zip(_ATTEMPT_NAMES, row[1:], strict=True))
        values["outcome"] = Outcome(values["outcome"]) if values["outcome"] else None
        found.setdefault(row[0], []).append(AttemptRow(**values))
    return found


@dataclass(frozen=True, slots=True)
class Resumed:
    """All that a node needs to go on with a run it owns."""

    run: RunRow
    definition: str
    blocks: tuple[BlockRow, ...]
    #: position of the newest log chunk, -1 without one
    log_pos: int = -1


def load(tx: Connection, run_id: int) -> Resumed | None:
    """A run with its frozen definition and its blocks."""
    query = select(*RUN_COLUMNS, VERSION.c.definition).join(VERSION, VERSION.c.hash == RUN.c.pipeline_hash)
    row = tx.execute(query.where(RUN.c.id == run_id)).first()
    if row is None:
        return None
    newest = select(func.max(LOG.c.pos)).where(LOG.c.pipeline_run_id == run_id)
    log_pos = tx.execute(newest).scalar()
    return Resumed(run_row(row), row[-1], tuple(blocks(tx, run_id)), -1 if log_pos is None else log_pos)


def cancel_asked(tx: Connection, node_id: str) -> list[int]:
    """Runs of this node whose cancel was asked for, perhaps by another node."""
    return list(tx.execute(_CANCEL_ASKED, {"node": node_id}).scalars())


_CANCEL_ASKED = (  # asked every second
    select(RUNNING.c.id)
    .where(RUNNING.c.owner == bindparam("node"), RUNNING.c.cancel_requested_at.is_not(None))
    .order_by(RUNNING.c.id)
)


def owned(tx: Connection, node_id: str) -> list[tuple[int, int]]:
    """Running runs of a node as (id, epoch)."""
    mine = select(RUNNING.c.id, RUNNING.c.epoch).where(RUNNING.c.owner == node_id)
    return [(row.id, row.epoch) for row in tx.execute(mine.order_by(RUNNING.c.id))]


def counts(tx: Connection) -> dict[str, int]:
    """How many runs there are in each live status."""
    live = [status for status in RunStatus if status not in RUN_TERMINAL]
    return {
        status.value: tx.execute(select(func.count()).where(RUN.c.status == status)).scalar_one()
        for status in live
    }


def left_outputs(
    tx: Connection, pipeline_uuid: str, block_uuids: Sequence[str]
) -> dict[str, tuple[int, str]]:
    """What blocks of a pipeline left behind in its newest completed run: block uuid -> (block run id, outputs)."""
    completed = (RUN.c.pipeline_uuid == pipeline_uuid, RUN.c.status == RunStatus.COMPLETED)
    # From the end of the index: a max() beside another condition would look at every run.
    newest = select(RUN.c.id).where(*completed).order_by(RUN.c.id.desc()).limit(1)
    query = select(BLOCK.c.block_uuid, BLOCK.c.id, BLOCK.c.outputs).where(
        BLOCK.c.pipeline_run_id == newest.scalar_subquery(),
        BLOCK.c.block_uuid.in_(block_uuids),
        BLOCK.c.status == BlockStatus.COMPLETED,
    )
    return {row.block_uuid: (row.id, row.outputs or "[]") for row in tx.execute(query)}


def left_by_children(tx: Connection, run_id: int, block_uuid: str) -> dict[str, tuple[int, str]]:
    """What the completed children of a block left in a run and is still kept: child uuid -> (block run id, outputs)."""
    template = select(BLOCK.c.id).where(BLOCK.c.pipeline_run_id == run_id, BLOCK.c.block_uuid == block_uuid)
    query = select(BLOCK.c.block_uuid, BLOCK.c.id, BLOCK.c.outputs).where(
        BLOCK.c.pipeline_run_id == run_id,
        BLOCK.c.parent_id == template.scalar_subquery(),
        BLOCK.c.status == BlockStatus.COMPLETED,
    )
    rows = tx.execute(query).all()
    return {row.block_uuid: (row.id, row.outputs or "[]") for row in rows if not _is_gone(row.outputs)}


def _is_gone(outputs: str | None) -> bool:
    kinds = (output.get("kind") for output in loads(outputs or "[]"))
    return GONE in kinds


def newest_between(tx: Connection, pipeline_uuid: str, since: datetime, until: datetime) -> RunRow | None:
    """The run of a pipeline with the latest execution date in [since, until]; the newest of several."""
    query = select(*RUN_COLUMNS).where(
        RUN.c.pipeline_uuid == pipeline_uuid, RUN.c.execution_date >= since, RUN.c.execution_date <= until
    )
    row = tx.execute(query.order_by(RUN.c.execution_date.desc(), RUN.c.id.desc()).limit(1)).first()
    return run_row(row) if row else None


def retry_root(tx: Connection, run_id: int) -> int | None:
    """The first run of a chain of retries; None for a run that is no retry."""
    return tx.execute(select(RUN.c.retry_root).where(RUN.c.id == run_id)).scalar()


def definitions(tx: Connection, digests: Collection[str]) -> dict[str, str]:
    """Frozen definitions by their hash."""
    query = select(VERSION.c.hash, VERSION.c.definition).where(VERSION.c.hash.in_(digests))
    return {row.hash: row.definition for row in tx.execute(query)}


def code_hashes(tx: Connection, block_run_ids: Collection[int]) -> dict[int, set[str]]:
    """Hashes of the code whose outputs these block runs have: their own, their children's, or what was carried over.

    A block run of which nothing is known any more, or that is in another database, is left out.
    """
    found: dict[int, set[str]] = {}
    asked = {block_id: block_id for block_id in block_run_ids}  # where to look -> for whom
    while asked:
        older: dict[int, int] = {}
        for ids in in_chunks(list(asked)):
            here = BLOCK.c.id.in_(ids) | BLOCK.c.parent_id.in_(ids)
            ran = select(BLOCK.c.id, BLOCK.c.parent_id, ATTEMPT.c.code_hash).select_from(BLOCK)
            ran = ran.join(ATTEMPT, ATTEMPT.c.block_run_id == BLOCK.c.id).where(
                here,
                ATTEMPT.c.outcome == Outcome.COMPLETED,
                ATTEMPT.c.hook.is_(None),
                ATTEMPT.c.code_hash.is_not(None),
            )
            for row in tx.execute(ran):
                found.setdefault(asked.get(row.id) or asked[row.parent_id], set()).add(row.code_hash)
            handed = select(BLOCK.c.id, BLOCK.c.parent_id, BLOCK.c.carried_from)
            for row in tx.execute(handed.where(here, BLOCK.c.carried_from.is_not(None))):
                older[row.carried_from] = asked.get(row.id) or asked[row.parent_id]
        asked = older
    return found
