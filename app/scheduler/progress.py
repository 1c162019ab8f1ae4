"""How a run goes on: which blocks are ready, what a failure means for the others, how it all ends. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.executors.base import BlockResult
from app.models import rules
from app.models.pipeline import Block, BlockType, Pipeline, RetryPolicy
from app.models.states import BLOCK_TERMINAL, BlockStatus, Outcome, RunStatus

B = BlockStatus
Statuses = Mapping[str, BlockStatus]

#: How often a block is started again after its worker or node was lost, which is nobody's fault in its code.
MAX_LOST = 5
#: How soon from its second loss on. A block that takes the others' workers along must not meet them each time.
_LOST_AGAIN = RetryPolicy(delay_s=1.0, max_delay_s=8.0, jitter=0.8)
DEFAULT_POKE_S = 60.0
#: A sensor's interval is shortened by up to this share, each sensor's by its own: a herd runs apart.
SPREAD = 0.1
_GOLDEN = 0.6180339887498949
_WAITING = frozenset({B.INITIAL, B.QUEUED})
#: upstreams that can keep a block from starting
TROUBLE = frozenset({B.FAILED, B.UPSTREAM_FAILED, B.CONDITION_FAILED, B.CANCELLED})


def ready(pipeline: Pipeline, statuses: Statuses, *, stopping: bool = False) -> list[str]:
    """Blocks that have not started and whose trigger rule is met, in pipeline order.

    `stopping`: a failure ends the run, so only blocks with a rule of their own may start.
    """
    return [block.uuid for block in pipeline.blocks if _is_ready(block, statuses, stopping)]


def made_ready(
    pipeline: Pipeline, statuses: Statuses, ended: Iterable[str], *, stopping: bool = False
) -> list[str]:
    """Blocks that became ready by the end of the blocks `ended`; children among them make none ready here."""
    below = dict.fromkeys(down for uuid in ended for down in pipeline.downstream.get(uuid, ()))
    return [down for down in below if _is_ready(pipeline.by_uuid[down], statuses, stopping)]


def _is_ready(block: Block, statuses: Statuses, stopping: bool) -> bool:
    if statuses[block.uuid] is not B.INITIAL or (stopping and not rules.outlives_failure(block)):
        return False
    return rules.may_start(block, statuses) is True


def fallout(
    pipeline: Pipeline, statuses: Statuses, *, allow_blocks_to_fail: bool, failed: str = ""
) -> dict[str, tuple[BlockStatus, str]]:
    """Blocks that will never start, with the status they take and why.

    Downstream of a failure: `upstream_failed`, all the way down, unless their trigger rule says otherwise. When
    the failure stops the run, whatever has not started and has no rule of its own is `cancelled`. `failed` is a
    child of a dynamic block that failed while its block is not over.
    """
    if not failed and pipeline.is_plain and TROUBLE.isdisjoint(statuses.values()):
        return {}
    after = dict(statuses)
    failed = failed or next((uuid for uuid, status in statuses.items() if status is B.FAILED), "")
    stopping = bool(failed) and not allow_blocks_to_fail
    fallen: dict[str, tuple[BlockStatus, str]] = {}
    for block in pipeline.blocks:  # upstreams come first, so one pass reaches the bottom
        if after[block.uuid] not in _WAITING:
            continue
        found = rules.may_start(block, after) if after[block.uuid] is B.INITIAL else False
        if stopping and not rules.outlives_failure(block):
            # What the failure reaches is told as such; the rest was merely stopped by it.
            status = found.status if isinstance(found, rules.Never) else B.CANCELLED
            reason = found.reason if isinstance(found, rules.Never) else f"block '{failed}' failed"
            found = rules.Never(status, reason)
        if isinstance(found, rules.Never):
            after[block.uuid] = found.status
            fallen[block.uuid] = (found.status, found.reason)
    return fallen


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
            wait = timedelta(seconds=_LOST_AGAIN.delay_before(lost, seed)) if lost > 1 else None
            return Judgement(B.QUEUED, wake_at=now + wait if wait else None, reason="worker lost")
        return Judgement(B.FAILED, reason=f"recovery limit: lost {lost} times")
    if charged <= block.retry.retries:
        delay = block.retry.delay_before(charged + 1, seed)
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
