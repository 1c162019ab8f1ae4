"""Named transaction *prune*: what is past its time is forgotten, in small transactions, and nothing a newer row needs.

Readers find (`old_runs` …), the writer forgets (`forget_runs` …) and looks once more whether it may. No file is
touched in here: what makes a run's files unneeded leaves a tombstone in the same transaction, and who has deleted
them takes it away. So a kill between the two leaves a tombstone, never a row without its file.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Select,
    bindparam,
    delete,
    func,
    or_,
    select,
    text,
    tuple_,
    update,
)

from app import clock
from app.models.states import RunStatus, SlotOutcome
from app.store.db import dumps, loads
from app.store.sql import BLOCK, LOG, META, RUN, SCHEDULE, SLOT, TOMBSTONE, in_chunks, insert

T = TypeVar("T")
#: Where a run lies among the finished ones of its pipeline, and where a slot among all.
RunAt = tuple[datetime, int]
SlotAt = tuple[int, datetime]
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_RUN: Final[RunAt] = (EPOCH, 0)
FIRST_SLOT: Final[SlotAt] = (0, EPOCH)
#: What an output says whose file is no longer kept.
GONE: Final = "gone"
#: How outputs that name a file begin, as `dumps` writes them: a value of a block may have a "path" of its own.
_FILES: Final = tuple(f'"kind":"{kind}","path":' for kind in ("pickle", "parquet", "items"))
_CLAIM: Final = "pruner"
#: A claim that is not renewed for so long is anybody's.
CLAIM_S: Final = 60.0


class Claimed(Exception):
    """Another node prunes."""


def batch(
    tx: Connection, node_id: str, forget: Callable[..., T], *args: Any, now: datetime
) -> tuple[float, T]:
    """Call `forget(tx, *args, now=now)` as the only node that prunes; the seconds it took, and what it said.

    Raises Claimed while another does.
    """
    began = clock.monotonic()
    claim(tx, node_id, now=now)
    result = forget(tx, *args, now=now)
    return clock.monotonic() - began, result


def claim(tx: Connection, node_id: str, *, now: datetime) -> None:
    """Be the one that prunes, for the next minute. Raises Claimed while another is."""
    mine = dumps([node_id, (now + timedelta(seconds=CLAIM_S)).timestamp()])
    made = insert(tx, META).values(key=_CLAIM, value=mine).on_conflict_do_nothing(index_elements=[META.c.key])
    tx.execute(made)
    query = select(META.c.value).where(META.c.key == _CLAIM).with_for_update()
    holder, until = loads(tx.execute(query).scalar_one())
    if holder != node_id and until > now.timestamp():
        raise Claimed(f"node {holder} prunes")
    tx.execute(update(META).where(META.c.key == _CLAIM).values(value=mine))


def release(tx: Connection, node_id: str) -> None:
    """Let another node prune."""
    free = dumps(["", 0])
    tx.execute(
        update(META).where(META.c.key == _CLAIM, META.c.value.like(f'["{node_id}",%')).values(value=free)
    )


def pipelines(tx: Connection) -> list[str]:
    """Every pipeline that has a run, also those whose folder has gone. It skips from one to the next."""
    skip = text(
        "WITH RECURSIVE p(uuid) AS (SELECT min(pipeline_uuid) FROM pipeline_run UNION ALL"
        " SELECT (SELECT min(r.pipeline_uuid) FROM pipeline_run r WHERE r.pipeline_uuid > p.uuid)"
        " FROM p WHERE p.uuid IS NOT NULL) SELECT uuid FROM p WHERE uuid IS NOT NULL"
    )
    return list(tx.execute(skip).scalars())


def edge(tx: Connection, pipeline_uuid: str, *, before: datetime | None, keep: int) -> datetime | None:
    """What ended before this is too old, by age (`before`) or by number (`keep`; 0 is any); None when nothing is."""
    times = [] if before is None else [before]
    if keep:
        ends = select(RUN.c.completed_at).where(RUN.c.pipeline_uuid == pipeline_uuid, _ENDED)
        last = tx.execute(ends.order_by(RUN.c.completed_at.desc()).limit(1).offset(keep - 1)).scalar()
        times += [] if last is None else [last]
    return max(times, default=None)


_ENDED: Final = RUN.c.completed_at.is_not(None)


def _ended(pipeline_uuid: str, before: datetime, after: RunAt, limit: int) -> Select[Any]:
    place = tuple_(RUN.c.completed_at, RUN.c.id)
    return (
        select(RUN.c.completed_at, RUN.c.id)
        .where(RUN.c.pipeline_uuid == pipeline_uuid, _ENDED, RUN.c.completed_at < before)
        .where(place > tuple_(bindparam(None, after[0], type_=RUN.c.completed_at.type), after[1]))
        .order_by(RUN.c.completed_at, RUN.c.id)
        .limit(limit)
    )


def _found(tx: Connection, query: Select[Any]) -> list[RunAt]:
    return [(row[0], row[1]) for row in tx.execute(query)]


def _heirs(run_id: ColumnElement[int], *, of_files: bool = False) -> Select[int]:
    """Blocks that have taken over what blocks of a run left; `of_files`: that do not say themselves that it is gone."""
    heir, source = BLOCK.alias(), BLOCK.alias()
    found = select(heir.c.id).where(heir.c.carried_from == source.c.id, source.c.pipeline_run_id == run_id)
    return found.where(_names_files(heir)) if of_files else found


def _names_files(blocks: FromClause) -> ColumnElement[bool]:
    return or_(*(blocks.c.outputs.contains(start) for start in _FILES))


def _heirless(*, of_files: bool = False) -> tuple[ColumnElement[bool], ...]:
    """That no other run has taken over what blocks of a run left, nor takes it from the newest completed run."""
    heirs, newest = _heirs(RUN.c.id, of_files=of_files), RUN.alias()
    completed = (newest.c.pipeline_uuid == RUN.c.pipeline_uuid, newest.c.status == RunStatus.COMPLETED)
    # By the index from its end: a max() beside another condition would look at every run.
    last = select(newest.c.id).where(*completed).order_by(newest.c.id.desc()).limit(1)
    return ~heirs.exists(), (RUN.c.status != RunStatus.COMPLETED) | (RUN.c.id != last.scalar_subquery())


def _unneeded() -> tuple[ColumnElement[bool], ...]:
    """That no row points at a run, and that it does not hold the newest slot of its trigger."""
    other, own, later = RUN.alias(), SLOT.alias(), SLOT.alias()
    pointers = (other.c.retry_of, other.c.retry_root, other.c.parent_run_id)
    named = [~select(other.c.id).where(pointer == RUN.c.id).exists() for pointer in pointers]
    after = select(later.c.revision).where(
        later.c.pipeline_schedule_id == own.c.pipeline_schedule_id,
        later.c.execution_date > own.c.execution_date,
    )
    newest = select(own.c.revision).where(own.c.pipeline_run_id == RUN.c.id, ~after.exists())
    return (*named, ~newest.exists(), *_heirless())


def _lock(tx: Connection, ids: Collection[int], may_go: Select[int]) -> list[int]:
    """Those of the runs that nobody is about to point at, and that may go still, asked after the lock."""
    if tx.dialect.name == "postgresql":
        free = _RUNS.order_by(RUN.c.id).with_for_update(skip_locked=True)
        ids = list(tx.execute(free, {"runs": ids}).scalars())
    return list(tx.execute(may_go, {"runs": ids}).scalars())


# Built once: building one of these takes longer than forgetting a run.
_RUNS = select(RUN.c.id).where(RUN.c.id.in_(bindparam("runs", expanding=True)), _ENDED)
_UNNEEDED_RUNS = _RUNS.where(*_unneeded())
_HEIRLESS_RUNS = _RUNS.where(*_heirless(of_files=True))


def old_runs(
    tx: Connection, pipeline_uuid: str, *, before: datetime, after: RunAt = FIRST_RUN, limit: int
) -> list[RunAt]:
    """Runs that may go, the oldest first."""
    return _found(tx, _ended(pipeline_uuid, before, after, limit).where(*_unneeded()))


def forget_runs(tx: Connection, ids: Collection[int], *, now: datetime) -> list[int]:
    """Delete runs with their blocks, attempts, logs and slots; those that were deleted.

    Runs that became needed meanwhile stay.
    """
    gone = _lock(tx, ids, _UNNEEDED_RUNS)
    if gone:
        _pruned_until(tx, SLOT.c.pipeline_run_id.in_(gone))
        tx.execute(delete(SLOT).where(SLOT.c.pipeline_run_id.in_(gone)))
        tx.execute(delete(RUN).where(RUN.c.id.in_(gone)))
        _bury(tx, gone, now)
    return gone


def with_logs(
    tx: Connection, pipeline_uuid: str, *, before: datetime, after: RunAt = FIRST_RUN, limit: int
) -> list[RunAt]:
    """Runs that have log lines, the oldest first."""
    lines = select(LOG.c.pos).where(LOG.c.pipeline_run_id == RUN.c.id).exists()
    return _found(tx, _ended(pipeline_uuid, before, after, limit).where(lines))


def forget_logs(tx: Connection, ids: Collection[int], limit: int, *, now: datetime) -> int:
    """Delete chunks of the logs of finished runs, at most so many; how many."""
    key = (LOG.c.pipeline_run_id, LOG.c.pos)
    some = select(*key).where(LOG.c.pipeline_run_id.in_(ids)).limit(limit)
    return tx.execute(delete(LOG).where(tuple_(*key).in_(some))).rowcount


def with_files(
    tx: Connection, pipeline_uuid: str, *, before: datetime, after: RunAt = FIRST_RUN, limit: int
) -> list[RunAt]:
    """Runs whose blocks have left files that no newer run has taken over, the oldest first."""
    kept = select(BLOCK.c.id).where(BLOCK.c.pipeline_run_id == RUN.c.id, _names_files(BLOCK))
    return _found(
        tx, _ended(pipeline_uuid, before, after, limit).where(kept.exists(), *_heirless(of_files=True))
    )


def forget_outputs(tx: Connection, ids: Collection[int], *, now: datetime) -> list[int]:
    """Say of outputs in files that they are gone; the runs of which that is now true."""
    gone = _lock(tx, ids, _HEIRLESS_RUNS)
    query = select(BLOCK.c.id, BLOCK.c.outputs).where(BLOCK.c.pipeline_run_id.in_(gone), _names_files(BLOCK))
    rows = [{"block": row.id, "left": dumps(_without_files(loads(row.outputs)))} for row in tx.execute(query)]
    if rows:
        tx.execute(_LEAVE, rows)
        _bury(tx, gone, now)
    return gone


_LEAVE: Final = update(BLOCK).where(BLOCK.c.id == bindparam("block")).values(outputs=bindparam("left"))


def _without_files(outputs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"kind": GONE} if _is_file(output) else output for output in outputs]


def _is_file(output: dict[str, Any]) -> bool:
    if output["kind"] == "list":
        return any(_is_file(part) for part in output["refs"])
    return "path" in output


def old_slots(tx: Connection, *, before: datetime, after: SlotAt = FIRST_SLOT, limit: int) -> list[SlotAt]:
    """Slots without a run that were decided before then; the newest of each trigger never."""
    place = tuple_(SLOT.c.pipeline_schedule_id, SLOT.c.execution_date)
    query = select(SLOT.c.pipeline_schedule_id, SLOT.c.execution_date).where(*_old_slot(before))
    query = query.where(place > tuple_(after[0], bindparam(None, after[1], type_=SLOT.c.execution_date.type)))
    ordered = query.order_by(SLOT.c.pipeline_schedule_id, SLOT.c.execution_date).limit(limit)
    return [(row[0], row[1]) for row in tx.execute(ordered)]


def _old_slot(before: datetime) -> tuple[ColumnElement[bool], ...]:
    later = SLOT.alias()
    newer = select(later.c.revision).where(
        later.c.pipeline_schedule_id == SLOT.c.pipeline_schedule_id,
        later.c.execution_date > SLOT.c.execution_date,
    )
    said = SLOT.c.sla_at.is_(None) | SLOT.c.sla_passed_at.is_not(None)
    return SLOT.c.outcome != SlotOutcome.RUN, SLOT.c.decided_at < before, said, newer.exists()


def forget_slots(tx: Connection, keys: Sequence[SlotAt], *, now: datetime) -> int:
    """Delete slots that made no run; how many."""
    of_keys = tuple_(SLOT.c.pipeline_schedule_id, SLOT.c.execution_date).in_(keys)
    _pruned_until(tx, of_keys)
    return tx.execute(delete(SLOT).where(of_keys, SLOT.c.outcome != SlotOutcome.RUN)).rowcount


def _pruned_until(tx: Connection, slots: ColumnElement[bool]) -> None:
    """Remember of each trigger the last of its slots that has no row any more."""
    last = func.max(func.coalesce(SLOT.c.until, SLOT.c.execution_date, type_=SLOT.c.until.type))
    query = select(SLOT.c.pipeline_schedule_id, last).where(slots).group_by(SLOT.c.pipeline_schedule_id)
    rows = [{"of": row[0], "to": row[1]} for row in tx.execute(query)]
    if rows:
        tx.execute(_PRUNED_UNTIL, sorted(rows, key=lambda row: int(row["of"])))


_PRUNED_UNTIL: Final = (
    update(SCHEDULE)
    .where(
        SCHEDULE.c.id == bindparam("of"),
        SCHEDULE.c.pruned_until.is_(None) | (SCHEDULE.c.pruned_until < bindparam("to")),
    )
    .values(pruned_until=bindparam("to"))
)


def _bury(tx: Connection, ids: Sequence[int], now: datetime) -> None:
    made = insert(tx, TOMBSTONE).on_conflict_do_nothing(index_elements=[TOMBSTONE.c.run_id])
    tx.execute(made, [{"run_id": run_id, "at": now} for run_id in ids])


def tombstones(tx: Connection, *, before: datetime, limit: int, after: int = 0) -> list[int]:
    """Runs beyond `after` whose files are to be deleted; none whose outputs somebody took over at the last moment."""
    heirs = _heirs(TOMBSTONE.c.run_id, of_files=True)
    query = select(TOMBSTONE.c.run_id).where(
        TOMBSTONE.c.run_id > after, TOMBSTONE.c.at <= before, ~heirs.exists()
    )
    return list(tx.execute(query.order_by(TOMBSTONE.c.run_id).limit(limit)).scalars())


def settle(tx: Connection, ids: Collection[int], *, now: datetime) -> int:
    """Take away the tombstones of runs whose files are gone; how many."""
    return tx.execute(delete(TOMBSTONE).where(TOMBSTONE.c.run_id.in_(ids))).rowcount


@dataclass(frozen=True, slots=True)
class Weight:
    """What runs hold: block runs, and the bytes of their logs as text."""

    block_runs: int = 0
    log_bytes: int = 0


def weigh(tx: Connection, ids: Collection[int]) -> Weight:
    """What some runs hold."""
    blocks = size = 0
    for part in in_chunks(list(ids)):
        counted = select(func.count()).select_from(BLOCK).where(BLOCK.c.pipeline_run_id.in_(part))
        blocks += tx.execute(counted).scalar_one()
        summed = select(func.sum(func.length(LOG.c.lines))).where(LOG.c.pipeline_run_id.in_(part))
        size += tx.execute(summed).scalar() or 0
    return Weight(blocks, size)
