"""Trigger rules: whether the upstream blocks let a block start, forbid it for good, or leave it waiting. Pure.

The names and their meaning are those the field knows. `skipped` upstreams count as successful. A rule that asks
for a failure which never came makes its block `skipped`; one that asks for a success that never came hands the
trouble on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from app.models.pipeline import Block, TriggerRule
from app.models.states import BLOCK_SATISFIED, BLOCK_TERMINAL, BlockStatus

B, R = BlockStatus, TriggerRule

_BAD: Final = frozenset({B.FAILED, B.UPSTREAM_FAILED})
#: what a block takes on from an upstream that is in its way
INHERITED: Final = {
    B.FAILED: B.UPSTREAM_FAILED,
    B.UPSTREAM_FAILED: B.UPSTREAM_FAILED,
    B.CONDITION_FAILED: B.CONDITION_FAILED,
    B.CANCELLED: B.CANCELLED,
}
_IN_THE_WAY: Final = {
    R.ALL_SUCCESS: frozenset(INHERITED),
    R.NONE_FAILED: frozenset({*_BAD, B.CANCELLED}),
}


@dataclass(frozen=True, slots=True)
class Never:
    """The rule can no longer be met: what becomes of the block, and why."""

    status: BlockStatus
    reason: str


def may_start(block: Block, statuses: Mapping[str, BlockStatus]) -> bool | Never:
    """True when the block's trigger rule is met, False while it may still be, Never when it cannot be any more.

    >>> from app.models.pipeline import BlockType
    >>> cleanup = Block("c", BlockType.CUSTOM, "c.py", upstream=("a", "b"), trigger_rule=TriggerRule.ALL_DONE)
    >>> may_start(cleanup, {"a": B.FAILED, "b": B.RUNNING}), may_start(cleanup, {"a": B.FAILED, "b": B.CANCELLED})
    (False, True)
    """
    rule = block.trigger_rule
    if rule is R.ALL_SUCCESS or rule is R.NONE_FAILED:
        return _unless_in_the_way(block, rule, statuses)
    ups = [statuses[upstream] for upstream in block.upstream]
    over = all(up in BLOCK_TERMINAL for up in ups)
    if rule is R.ALWAYS or (rule is R.ALL_DONE and over):
        return True
    if rule is R.ONE_SUCCESS:
        return _one_success(block, ups, over)
    if rule in (R.ONE_FAILED, R.ALL_FAILED):
        return _on_failure(rule, ups, over)
    return False


def _unless_in_the_way(block: Block, rule: TriggerRule, statuses: Mapping[str, BlockStatus]) -> bool | Never:
    """`all_success` and `none_failed`: the first upstream that is in the way decides, else all must be over."""
    waits = False
    for upstream in block.upstream:
        status = statuses[upstream]
        if status in _IN_THE_WAY[rule]:
            return Never(INHERITED[status], f"upstream block '{upstream}' is {status}")
        waits = waits or status not in BLOCK_TERMINAL
    return not waits


def _one_success(block: Block, ups: Sequence[BlockStatus], over: bool) -> bool | Never:
    if not ups or any(up in BLOCK_SATISFIED for up in ups):
        return True
    if not over:
        return False
    worst = next((status for status in INHERITED if status in ups), B.CANCELLED)
    return Never(INHERITED[worst], f"no upstream of it succeeded (trigger_rule {block.trigger_rule})")


def _on_failure(rule: TriggerRule, ups: Sequence[BlockStatus], over: bool) -> bool | Never:
    bad = [up in _BAD for up in ups]
    if bad and (any(bad) if rule is R.ONE_FAILED else all(bad)):
        return True
    hopeless = over if rule is R.ONE_FAILED else any(up in BLOCK_TERMINAL - _BAD for up in ups)
    return Never(B.SKIPPED, f"trigger_rule {rule} is not met") if hopeless or not ups else False


def outlives_failure(block: Block) -> bool:
    """Whether a block with a rule of its own goes on when another one's failure ends the run."""
    return block.trigger_rule is not R.ALL_SUCCESS
