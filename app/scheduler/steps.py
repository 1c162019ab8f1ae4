"""The decisions of one step, applied to a run's state in memory and put into rows for the journal.

No waiting and no I/O here: the runner does that. State moves before the journal has answered, so that two
blocks which end together never decide the same thing twice; a start that is refused is taken back.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from itertools import chain
from typing import Any, Literal

from app.events import BlockEnded
from app.executors.base import BlockResult
from app.models import rules
from app.models.rows import RunRow
from app.models.states import BlockStatus, Outcome, RunStatus
from app.scheduler import families, progress
from app.scheduler.progress import Judgement
from app.scheduler.runstate import BlockState, RunState
from app.store import sla
from app.store.db import dumps
from app.store.units import Close, Finish, Settle, Start

StopWhy = Literal["cancel", "deadline", "sla"]
#: A sensor whose timeout has almost passed may still be asked once more, for so long.
LAST_POKE_S = 1.0
#: Failed children that a run's reason names.
SHOWN = 10
_CHARGED = frozenset({Outcome.FAILED, Outcome.TIMEOUT, Outcome.CRASHED})
_UNMET = {BlockStatus.FAILED: Outcome.TIMEOUT, BlockStatus.CANCELLED: Outcome.CANCELLED}
_STOP_REASON = {"cancel": "cancel requested", "deadline": "run timed out", "sla": sla.REASON}
#: What is told to whoever is killed for it.
KILL_REASON = {"cancel": "cancelled", "deadline": "run timed out", "sla": "run passed its SLA"}


def start(block: BlockState, now: datetime) -> Start:
    """Count a new attempt of a block."""
    block.attempt += 1
    block.tries += 1
    block.state, block.wake_at = BlockStatus.RUNNING, None
    block.started_at = block.started_at or now
    return Start(block_run_id=block.id, attempt=block.attempt)


def take_back(block: BlockState) -> None:
    """Undo :func:`start`: the journal refused it."""
    block.attempt -= 1
    block.tries -= 1
    block.state = BlockStatus.QUEUED if block.tries else BlockStatus.INITIAL


def asked_to_stop(run: RunRow, now: datetime) -> StopWhy | None:
    """Why a run must end before any more of it starts, as its row tells."""
    if run.cancel_requested_at is not None:
        return "cancel"
    if run.deadline_at is not None and run.deadline_at <= now:
        return "deadline"
    return "sla" if stops_at_sla(run) and run.sla_at is not None and run.sla_at <= now else None


def stops_at_sla(run: RunRow) -> bool:
    """Whether a run that passes its SLA ends there (`on_sla: cancel` or `fail`)."""
    return run.sla_at is not None and run.options.get("on_sla") in sla.ENDS


def moments(run: RunRow) -> list[tuple[datetime, Literal["sla", "deadline"]]]:
    """When something must be done about a running run, in order: its SLA, if that is still ahead, and its deadline."""
    found: list[tuple[datetime, Literal["sla", "deadline"]]] = []
    if run.sla_at is not None and run.sla_passed_at is None:
        found.append((run.sla_at, "sla"))
    if run.deadline_at is not None:
        found.append((run.deadline_at, "deadline"))
    return sorted(found)


def wake_for(run: RunRow, wake_at: datetime) -> datetime:
    """When a parked run goes on: at its next poke or attempt, or before, when its time is up."""
    ends = (run.deadline_at, run.sla_at if stops_at_sla(run) else None)
    return min([wake_at, *(end for end in ends if end is not None)])


def time_limit(block: BlockState, now: datetime) -> float | None:
    """Seconds that the next attempt may take; the next poke of a sensor has what the ones before it have left."""
    limit = block.block.timeout_s
    if limit is None or not block.is_waiting_sensor or block.started_at is None:
        return limit
    return max(LAST_POKE_S, limit - (now - block.started_at) / timedelta(seconds=1))


def judge(block: BlockState, result: BlockResult, why: StopWhy | None, now: datetime) -> Judgement:
    """What the end of an attempt means; the block's state follows. A stopped run tries nothing again."""
    block.lost += result.outcome is Outcome.LOST
    block.charged += result.outcome in _CHARGED
    started_at = block.started_at or now
    judgement = progress.judge(
        block.block,
        result,
        charged=block.charged,
        lost=block.lost,
        started_at=started_at,
        now=now,
        seed=block.id,
    )
    if why is not None and (judgement.waiting or judgement.status is BlockStatus.QUEUED):
        judgement = Judgement(BlockStatus.CANCELLED, reason=_STOP_REASON[why])
    block.state, block.wake_at = judgement.status, judgement.wake_at
    if result.outcome is not Outcome.LOST:  # else the same poke is begun anew
        block.poke_at = judgement.wake_at if judgement.waiting else None
    block.error = asdict(result.error) if result.error else None
    if judgement.status is BlockStatus.COMPLETED:
        block.outputs = result.outputs
    return judgement


def is_failing(state: RunState) -> bool:
    """Whether a block's failure ends the run: nothing starts any more but blocks with a rule of their own."""
    if state.allow_blocks_to_fail:
        return False
    return BlockStatus.FAILED in state.statuses.values() or any(f.failed for f in state.families.values())


def forbids(state: RunState, why: StopWhy | None, uuid: str) -> bool:
    """Whether a block may not start any more, nor go on."""
    if why is not None:
        return True
    return not rules.outlives_failure(state.block(uuid).block) and is_failing(state)


def fall_out(state: RunState, why: StopWhy | None) -> list[Settle]:
    """Blocks that can never start any more, with what becomes of them."""
    fallen = progress.fallout(
        state.pipeline,
        state.statuses,
        allow_blocks_to_fail=state.allow_blocks_to_fail,
        failed=next(iter(state.failed_children), ""),
    )
    for uuid, never in families.without_items(state).items():
        fallen.setdefault(uuid, (never.status, never.reason))
    if why is not None:
        for uuid, block in state.blocks.items():
            if block.state in (BlockStatus.INITIAL, BlockStatus.QUEUED) and uuid not in state.families:
                fallen.setdefault(uuid, (BlockStatus.CANCELLED, _STOP_REASON[why]))
    settles = []
    for uuid, (status, reason) in fallen.items():
        block = state.blocks[uuid]
        block.state, block.wake_at = status, None
        settles.append(Settle(block_run_id=block.id, status=status, reason=reason))
    return settles


def drop_sensors(state: RunState, why: StopWhy | None, busy: Collection[str]) -> list[Finish]:
    """End the sensors that wait between two pokes: a run that stops waits for nothing."""
    dropped = []
    for block in state.everything():
        if block.is_waiting_sensor and block.uuid not in busy and forbids(state, why, block.uuid):
            block.state, block.wake_at = BlockStatus.CANCELLED, None
            judgement = Judgement(BlockStatus.CANCELLED, reason="cancelled")
            dropped.append(finish_row(block, judgement, BlockResult(Outcome.CANCELLED)))
    return dropped


def closing(state: RunState, why: StopWhy | None) -> Close | None:
    """The end of the run, when no block can move any more; a hook may have something left to do."""
    end = progress.roll_up(state.statuses)
    if end is None:
        return None
    status, reason = end
    if children := state.failed_children:  # they say more than the block that they belong to
        own = [
            u for u, b in state.blocks.items() if b.state is BlockStatus.FAILED and u not in state.families
        ]
        status, reason = RunStatus.FAILED, f"block_failed: {', '.join([*own, *children][:SHOWN])}"
    if why == "deadline":
        status, reason = RunStatus(state.run.timeout_status or RunStatus.FAILED), "timeout"
    elif why is not None and status is not RunStatus.COMPLETED:
        ends = sla.ENDS.get(state.run.options.get("on_sla", "")) if why == "sla" else None
        status, reason = ends or RunStatus.CANCELLED, _STOP_REASON[why]
    return Close(status=status, reason=reason, metrics=state.run.metrics)


def finish_row(block: BlockState, judgement: Judgement, result: BlockResult) -> Finish:
    """The end of an attempt as the journal writes it."""
    done = judgement.status is BlockStatus.COMPLETED
    outcome, evidence = result.outcome, result.evidence
    if outcome is Outcome.LOST and block.poke_at is not None:
        evidence = {**(evidence or {}), "poke_at": block.poke_at.isoformat()}
    if (
        result.value_false
    ):  # a poke that said "not yet" completes nothing: it was the last of a sensor that ends
        outcome = _UNMET.get(judgement.status, outcome)
    return Finish(
        block_run_id=block.id,
        attempt=block.attempt,
        outcome=outcome,
        status=judgement.status,
        reason=judgement.reason,
        outputs=dumps(list(result.outputs)) if done else None,
        error=asdict(result.error) if result.error else None,
        evidence=evidence,
        metrics=result.metrics,
        code_hash=result.code_hash,
        wake_at=judgement.wake_at,
    )


def hook_row(block: BlockState, result: BlockResult) -> Finish:
    """The end of a hook's attempt as the journal writes it; the block run stays as it is."""
    return Finish(
        block_run_id=block.id,
        attempt=block.attempt,
        outcome=result.outcome,
        status=block.state,
        error=asdict(result.error) if result.error else None,
        evidence=result.evidence,
        code_hash=result.code_hash,
        hook=True,
    )


def ended_event(run_id: int, block: BlockState, judgement: Judgement, result: BlockResult) -> BlockEnded:
    """What listeners are told of the end of an attempt."""
    duration: Any = result.metrics.get("duration_s")
    return BlockEnded(
        run_id=run_id,
        block_uuid=block.uuid,
        status=judgement.status,
        attempt=block.attempt,
        outcome=result.outcome,
        error=asdict(result.error) if result.error else None,
        duration_s=duration,
        wake_at=judgement.wake_at,
    )


def names_of(state: RunState, settles: Sequence[Settle | Finish]) -> list[str]:
    """The uuids of blocks that ended without an attempt."""
    if not settles:
        return []
    names = {block.id: block.uuid for block in chain(state.blocks.values(), state.children.values())}
    return [names[settle.block_run_id] for settle in settles]


def settled_events(state: RunState, settles: Sequence[Settle]) -> list[BlockEnded]:
    """What listeners are told of blocks that ended without an attempt."""
    return [
        BlockEnded(run_id=state.run.id, block_uuid=uuid, status=settle.status)
        for uuid, settle in zip(names_of(state, settles), settles, strict=True)
    ]
