"""Named transactions *cancel* and *takeover*: runs are asked to stop, or change hands."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    bindparam,
    exists,
    func,
    select,
    text,
    update,
)

from app.models.rows import RunRow
from app.models.states import BlockStatus, NodeState, Outcome, RunStatus
from app.store import sla
from app.store.endings import cancel_blocks, end_waiting, late
from app.store.nodes import count_holders, is_live
from app.store.runs import RUN_COLUMNS, run_row
from app.store.scopes import IS_RUNNING, RUNNING
from app.store.sql import ATTEMPT, BLOCK, NODE, RUN, take_seq

#: The reason of a run whose parent was cancelled.
PARENT: Final = "parent cancelled"


def cancel(
    tx: Connection, run_id: int, *, reason: str, now: datetime, detail: Mapping[str, Any] | None = None
) -> RunRow | None:
    """Ask a run to stop. A waiting run ends here; a running one is killed and closed by its owner, for this reason.

    What it started is asked too, all the way down. A finished run is returned as it is; None when there is
    no such run.
    """
    locked = select(RUN.c.status, RUN.c.created_at).where(RUN.c.id == run_id).with_for_update(key_share=True)
    row = tx.execute(locked).first()
    if row is None:
        return None
    # After the lock: what is launched from here on sees for itself that its parent was cancelled.
    for child in children(tx, run_id):
        cancel(tx, child, reason=PARENT, now=now)
    now = max(now, row.created_at)
    if row.status == RunStatus.INITIAL:
        asked = {"cancel_requested_at": now}
        end_waiting(tx, run_id, RunStatus.CANCELLED, reason=reason, detail=detail, now=now, **asked)
    elif row.status == RunStatus.RUNNING:
        tx.execute(
            update(RUN)
            .where(RUN.c.id == run_id, RUN.c.cancel_requested_at.is_(None))
            .values(
                cancel_requested_at=max(now, _last_start(tx, run_id) or now),
                status_reason=reason,
                status_detail=detail,
            )
        )
    return run_row(tx.execute(select(*RUN_COLUMNS).where(RUN.c.id == run_id)).one())


def _last_start(tx: Connection, run_id: int) -> datetime | None:
    """When an attempt of a run last started: perhaps after the caller looked at the clock, while it waited for us."""
    query = select(func.max(ATTEMPT.c.started_at)).join(BLOCK, BLOCK.c.id == ATTEMPT.c.block_run_id)
    return tx.execute(query.where(BLOCK.c.pipeline_run_id == run_id)).scalar()


def children(tx: Connection, run_id: int) -> list[int]:
    """Runs that this run started and that are not over."""
    query = select(RUN.c.id).where(RUN.c.parent_run_id == run_id, RUN.c.completed_at.is_(None))
    return list(tx.execute(query.order_by(RUN.c.id)).scalars())


def ancestors(tx: Connection, run_id: int) -> list[RunRow]:
    """The run itself, its parent, and so on up."""
    found: list[RunRow] = []
    upwards: int | None = run_id
    while upwards is not None:
        row = tx.execute(select(*RUN_COLUMNS).where(RUN.c.id == upwards)).first()
        if row is None:
            break
        found.append(run_row(row))
        upwards = found[-1].parent_run_id
    return found


@dataclass(frozen=True, slots=True)
class TakenOver:
    """A run that changed hands, at its new epoch."""

    run_id: int
    epoch: int
    recoveries: int
    #: how often that block of it was lost which was lost most, of those that are not over
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Estate:
    """What the dead have left, and how many live nodes share it."""

    parked: int
    others: int
    heirs: int

    def share(self, of: int) -> int:
        """One heir's part, rounded up.

        >>> Estate(parked=7, others=4, heirs=3).share(7)
        3
        """
        return -(-of // max(1, self.heirs))


def estate(tx: Connection) -> Estate:
    """What is there to be taken over."""
    if not (total := tx.execute(_LEFT).scalar_one()):
        return Estate(0, 0, 1)  # as good as always
    parked = tx.execute(_LEFT_PARKED).scalar_one()
    return Estate(parked, total - parked, count_holders(tx))


def takeover(tx: Connection, node_id: str, *, limit: int, now: datetime) -> list[TakenOver]:
    """Take runs over from nodes that are stopped or fenced: epoch + 1, open attempts lost, their blocks queued.

    Nothing for a node that is one of these itself, or on its way there.
    """
    rows = _move(tx, node_id, _of_the_dead(limit), now=now)
    lost = _losses(tx, [row.id for row in rows]) if rows else {}
    return [TakenOver(row.id, row.epoch, row.recoveries, lost.get(row.id, 0)) for row in rows]


@dataclass(frozen=True, slots=True)
class Parked:
    """A run that was taken over while it only waited: when it goes on, and what its blocks are."""

    run_id: int
    wake_at: datetime
    definition_hash: str
    statuses: dict[str, BlockStatus]


def take_over_parked(tx: Connection, node_id: str, *, limit: int, now: datetime) -> list[Parked]:
    """Take over runs in which nothing ran: they need no run slot, so any number of them may come at once."""
    pick = _of_the_dead(limit).where(*_only_waits())
    ids = [row.id for row in _move(tx, node_id, pick, now=now)]
    columns = (
        RUN.c.id,
        RUN.c.pipeline_hash,
        RUN.c.deadline_at,
        RUN.c.sla_at,
        RUN.c.options,
        BLOCK.c.block_uuid,
        BLOCK.c.status,
        BLOCK.c.wake_at,
    )
    query = select(*columns).join(BLOCK, BLOCK.c.pipeline_run_id == RUN.c.id).where(RUN.c.id.in_(ids))
    found: dict[int, Parked] = {}
    for run_id, digest, deadline, sla_at, options, uuid, status, wake_at in tx.execute(query):
        known = found.get(run_id)
        ends = sla_at if options.get("on_sla") in sla.ENDS else None
        times = [t for t in (deadline, ends, wake_at, known.wake_at if known else None) if t is not None]
        statuses = {**(known.statuses if known else {}), uuid: BlockStatus(status)}
        found[run_id] = Parked(run_id, min(times, default=_NEVER), digest, statuses)
    return list(found.values())


_NEVER = datetime.max.replace(tzinfo=UTC)


def _only_waits() -> tuple[ColumnElement[bool], ...]:
    """That a block of a run waits for a time, and none runs or could."""
    waits = exists().where(BLOCK.c.pipeline_run_id == RUN.c.id, BLOCK.c.wake_at.is_not(None))
    runs_now = exists().where(
        BLOCK.c.pipeline_run_id == RUN.c.id,
        BLOCK.c.wake_at.is_(None),
        BLOCK.c.status.in_([BlockStatus.RUNNING, BlockStatus.QUEUED]),
    )
    return waits, ~runs_now, RUN.c.cancel_requested_at.is_(None)


_DEAD = select(NODE.c.id).where(NODE.c.state.in_([NodeState.STOPPED, NodeState.FENCED]))
_LEFT = select(func.count()).select_from(RUNNING).where(RUNNING.c.owner.in_(_DEAD))  # asked every second
_LEFT_IDS = select(RUNNING.c.id).where(RUNNING.c.owner.in_(_DEAD))
_LEFT_PARKED = select(func.count()).where(RUN.c.id.in_(_LEFT_IDS), *_only_waits())


def _of_the_dead(limit: int) -> Select[int]:
    return (
        select(RUN.c.id)
        # Found by the first, and as it is once it is locked by the others.
        .where(RUN.c.id.in_(_LEFT_IDS), IS_RUNNING, RUN.c.owner.in_(_DEAD))
        .order_by(RUN.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True, key_share=True, of=RUN)
    )


def _move(tx: Connection, node_id: str, pick: Select[int], *, now: datetime) -> list[Any]:
    ids = list(tx.execute(pick).scalars()) if is_live(tx, node_id) else []
    if not ids:
        return []
    moved = tx.execute(
        update(RUN)
        .where(RUN.c.id.in_(ids))
        .values(owner=node_id, epoch=RUN.c.epoch + 1, recoveries=RUN.c.recoveries + 1)
        .returning(RUN.c.id, RUN.c.epoch, RUN.c.recoveries)
    )
    rows = sorted(moved.all(), key=lambda row: int(row.id))
    _lose_open_attempts(tx, ids, now=now)
    return rows


def _losses(tx: Connection, run_ids: list[int]) -> dict[int, int]:
    query = (
        select(BLOCK.c.pipeline_run_id, func.count().label("times"))
        .join(ATTEMPT, ATTEMPT.c.block_run_id == BLOCK.c.id)
        .where(
            BLOCK.c.pipeline_run_id.in_(run_ids),
            BLOCK.c.completed_at.is_(None),
            ATTEMPT.c.outcome == Outcome.LOST,
        )
        .group_by(BLOCK.c.pipeline_run_id, BLOCK.c.id)
        .order_by(text("times"))
    )
    return {row.pipeline_run_id: row.times for row in tx.execute(query)}  # the worst of a run comes last


def retake(tx: Connection, run_id: int, node_id: str, epoch: int, *, now: datetime) -> bool:
    """Begin anew with an own run that nobody drives, as after a takeover; False when it is not ours at that epoch."""
    mine = _mine(run_id, node_id, epoch)
    if tx.execute(select(RUN.c.id).where(*mine).with_for_update(key_share=True)).first() is None:
        return False
    tx.execute(update(RUN).where(*mine).values(epoch=epoch + 1))
    _lose_open_attempts(tx, [run_id], now=now)
    return True


def _mine(run_id: int, node_id: str, epoch: int) -> tuple[ColumnElement[bool], ...]:
    """That a run is a node's at an epoch, and that the node may still change it."""
    return (
        RUN.c.id == run_id,
        RUN.c.owner == node_id,
        RUN.c.epoch == epoch,
        RUN.c.status == RunStatus.RUNNING,
        select(NODE.c.id)
        .where(NODE.c.id == node_id, NODE.c.state.in_([NodeState.LIVE, NodeState.DRAINING]))
        .exists(),
    )


_END_ATTEMPT = (
    update(ATTEMPT)
    .where(ATTEMPT.c.block_run_id == bindparam("block"), ATTEMPT.c.attempt == bindparam("number"))
    .values(ended_at=bindparam("at"), e_seq=bindparam("seq"), outcome=bindparam("how"))
    .values(evidence=bindparam("told", type_=ATTEMPT.c.evidence.type))
)


def _lose_open_attempts(tx: Connection, run_ids: list[int], *, now: datetime) -> None:
    of_runs = select(BLOCK.c.id).where(BLOCK.c.pipeline_run_id.in_(run_ids))
    still_open = (
        select(ATTEMPT.c.block_run_id, ATTEMPT.c.attempt, BLOCK.c.wake_at)
        .join(BLOCK, BLOCK.c.id == ATTEMPT.c.block_run_id)
        .where(ATTEMPT.c.block_run_id.in_(of_runs), ATTEMPT.c.ended_at.is_(None))
        .order_by(ATTEMPT.c.block_run_id)
    )
    lost = tx.execute(still_open).all()
    rows = [
        # A sensor between two pokes ran nothing: it lost nothing, however often its node is replaced. The attempt
        # that follows begins with the same poke.
        {
            "block": block,
            "number": number,
            "at": now,
            "seq": seq,
            "how": Outcome.CANCELLED if wake_at else Outcome.LOST,
            "told": {"poke_at": wake_at.isoformat()} if wake_at else None,
        }
        for (block, number, wake_at), seq in zip(lost, take_seq(tx, len(lost)), strict=True)
    ]
    if rows:
        tx.execute(_END_ATTEMPT, rows)
    tx.execute(
        update(BLOCK)
        .where(BLOCK.c.pipeline_run_id.in_(run_ids), BLOCK.c.status == BlockStatus.RUNNING)
        .values(status=BlockStatus.QUEUED)
    )


def abort(tx: Connection, run_id: int, node_id: str, epoch: int, *, reason: str, now: datetime) -> bool:
    """End a run that its owner cannot go on with, whatever its blocks are doing; False when it is not the owner's."""
    mine = _mine(run_id, node_id, epoch)
    row = tx.execute(select(RUN.c.started_at).where(*mine).with_for_update(key_share=True)).first()
    if row is None:
        return False
    now = max(now, row.started_at, _last_start(tx, run_id) or now)
    _lose_open_attempts(tx, [run_id], now=now)
    cancel_blocks(tx, run_id, reason=reason, now=now)
    tx.execute(
        update(RUN)
        .where(*mine)
        .values(
            status=RunStatus.FAILED,
            status_reason=reason,
            completed_at=now,
            e_seq=take_seq(tx, 1)[0],
            **late(now),
        )
    )
    return True
