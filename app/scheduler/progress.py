"""How a run goes on: which blocks are ready, what a failure means for the others, how it all ends. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.executors.base import BlockResult
from app.models.pipeline import Block, BlockType, Pipeline
from app.models.states import BLOCK_SATISFIED, BLOCK_TERMINAL, BlockStatus, Outcome, RunStatus

B = BlockStatus
Statuses = Mapping[str, BlockStatus]

#: How often a block is started again after its worker or node was lost, which is nobody's fault in its code.
MAX_LOST = 5
DEFAULT_POKE_S = 60.0
#: A sensor's interval is shortened by up to this share, each sensor's by its own: a herd runs apart.
SPREAD = 0.1
_GOLDEN = 0.6180339887498949
_WAITING = frozenset({B.INITIAL, B.QUEUED})


def ready(pipeline: Pipeline, statuses: Statuses) -> list[str]:
    """Blocks that have not started and whose upstreams are all satisfied, in pipeline order."""
    return [
        block.uuid
        for block in pipeline.blocks
        if statuses[block.uuid] is B.INITIAL and all(statuses[up] in BLOCK_SATISFIED for up in block.upstream)
    ]


def made_ready(pipeline: Pipeline, statuses: Statuses, uuid: str) -> list[str]:
    """Blocks that became ready by the end of block `uuid`."""
    return [
        down
        for down in pipeline.downstream[uuid]
        if statuses[down] is B.INITIAL
        and all(statuses[up] in BLOCK_SATISFIED for up in pipeline.by_uuid[down].upstream)
    ]


def must_stop(statuses: Statuses, *, allow_blocks_to_fail: bool) -> bool:
    """Whether a failure forbids every further start (Mage: the run fails with its first block)."""
    return not allow_blocks_to_fail and B.FAILED in statuses.values()


def fallout(
    pipeline: Pipeline, statuses: Statuses, *, allow_blocks_to_fail: bool
) -> dict[str, tuple[BlockStatus, str]]:
    """Blocks that will never start, with the status they take and why.

    Downstream of a failure: `upstream_failed`, all the way down. When the failure stops the run, the
    rest of what has not started is `cancelled`.
    """
    after = dict(statuses)
    fallen: dict[str, tuple[BlockStatus, str]] = {}
    for block in pipeline.blocks:  # upstreams come first, so one pass reaches the bottom
        if after[block.uuid] is not B.INITIAL:
            continue
        for upstream in block.upstream:
            if (status := _inherited(after[upstream])) is not None:
                after[block.uuid] = status
                fallen[block.uuid] = (status, f"upstream block '{upstream}' is {after[upstream]}")
                break
    if must_stop(statuses, allow_blocks_to_fail=allow_blocks_to_fail):
        failed = next(uuid for uuid, status in statuses.items() if status is B.FAILED)
        for uuid, status in after.items():
            if status in _WAITING:
                fallen[uuid] = (B.CANCELLED, f"block '{failed}' failed")
    return fallen


def _inherited(upstream: BlockStatus) -> BlockStatus | None:
    if upstream in (B.FAILED, B.UPSTREAM_FAILED):
        return B.UPSTREAM_FAILED
    return upstream if upstream in (B.CONDITION_FAILED, B.CANCELLED) else None


def roll_up(statuses: Statuses) -> tuple[RunStatus, str | None] | None:
    """How a run ends whose blocks stand like this; None while any may still move."""
    if any(status not in BLOCK_TERMINAL for status in statuses.values()):
        return None
    failed = [uuid for uuid, status in statuses.items() if status is B.FAILED]
    if failed:
        return RunStatus.FAILED, f"block_failed: {', '.join(failed)}"
    if B.CANCELLED in statuses.values():
        return RunStatus.CANCELLED, "cancelled"
    return RunStatus.COMPLETED, None


@dataclass(frozen=True, slots=True)
class Judgement:
    """What an attempt's end means for its block run. `waiting`: a sensor that stays open and is poked again."""

    status: BlockStatus
    wake_at: datetime | None = None
    reason: str | None = None
    waiting: bool = False


def judge(
    block: Block,
    result: BlockResult,
    *,
    charged: int,
    lost: int,
    started_at: datetime,
    now: datetime,
    seed: int = 0,
) -> Judgement:
    """Judge the end of an attempt.

    `charged`: attempts that count against the retries, this one included; `lost`: attempts that were lost
    with their worker or node, this one included; `started_at`: first start of the block run; `seed`: any number
    that differs between sensors, to keep those that began together apart.
    """
    if result.outcome is Outcome.COMPLETED:
        return (
            _judge_sensor(block, started_at=started_at, now=now, seed=seed)
            if result.value_false
            else Judgement(B.COMPLETED)
        )
    if result.outcome is Outcome.CANCELLED:
        return Judgement(B.CANCELLED, reason="cancelled")
    if result.outcome is Outcome.LOST:
        if lost < MAX_LOST:
            return Judgement(B.QUEUED, reason="worker lost")
        return Judgement(B.FAILED, reason=f"recovery limit: lost {lost} times")
    if charged <= block.retry.retries:
        delay = block.retry.delay_before(charged + 1)
        return Judgement(
            B.QUEUED, wake_at=now + timedelta(seconds=delay), reason=f"retry after {result.outcome}"
        )
    return Judgement(B.FAILED, reason=str(result.outcome))


def _judge_sensor(block: Block, *, started_at: datetime, now: datetime, seed: int) -> Judgement:
    assert block.type is BlockType.SENSOR
    if block.timeout_s and now >= started_at + timedelta(seconds=block.timeout_s):
        return Judgement(B.FAILED, reason="sensor timed out")
    interval = poke_interval_s(block) * (1 - SPREAD * (seed * _GOLDEN % 1))
    return Judgement(B.RUNNING, wake_at=now + timedelta(seconds=interval), waiting=True)


def poke_interval_s(block: Block) -> float:
    """Seconds between two pokes of a sensor: its configuration's `interval`, else Mage's fixed minute."""
    interval = block.configuration.get("interval")
    if isinstance(interval, int | float) and not isinstance(interval, bool) and interval > 0:
        return float(interval)
    return DEFAULT_POKE_S


def waiting_until(wakes: Mapping[str, datetime | None]) -> datetime | None:
    """The earliest moment at which one of these blocks wants to go on; None when none waits."""
    return min(_times(wakes), default=None)


def _times(wakes: Mapping[str, datetime | None]) -> Iterator[datetime]:
    return (wake for wake in wakes.values() if wake is not None)
