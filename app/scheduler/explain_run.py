"""Why a run waits, what it is doing, or why it ended as it did: reasons from its rows. Pure.

The first reason is the one that decides. `code` is stable; `detail` has the facts the message is made of.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from app.models.pipeline import Pipeline
from app.models.rows import BlockRow, RunRow
from app.models.states import BLOCK_SATISFIED, RUN_TERMINAL, BlockStatus, RunStatus
from app.scheduler.explain import Reason, span, stamp

B = BlockStatus
#: What the reason of a run's end means, for a person.
_ENDS: Final = {
    "cancel requested": ("cancel_requested", "Somebody asked it to stop, by the API or the command line."),
    "cancelled": ("cancelled", "A block of it was cancelled, and no other could go on."),
    "parent cancelled": ("parent_cancelled", "The run that had started it was cancelled."),
    "pipeline_run_limit": (
        "pipeline_run_limit",
        "Its trigger had as many runs as pipeline_run_limit allows; the surplus run is cancelled at birth.",
    ),
    "overlap": ("overlap", "Another run of its trigger was not over (skip_if_previous_running)."),
    "replaced": ("replaced", "A newer run of its trigger took its place (on_pipeline_run_limit_reached)."),
    "timeout": ("timeout", "It ran longer than its trigger's timeout allows."),
    "sla": ("sla", "It was not over within its trigger's sla, and on_sla says to stop it then."),
    "recovery limit": (
        "recovery_limit",
        "Its blocks were lost with their workers or nodes too often; it is not tried again.",
    ),
    "internal_error": (
        "internal_error",
        "The service could not go on with it; its own log has the error under the id of the run.",
    ),
}


def explain_run(
    run: RunRow, pipeline: Pipeline, blocks: Sequence[BlockRow], waits: Sequence[Reason], *, now: datetime
) -> list[Reason]:
    """The reasons, the deciding one first. `waits` says why a run that is still `initial` has not started."""
    match run.status:
        case RunStatus.INITIAL:
            waiting = waits or [Reason("waits_for_node", "It waits for a node that has room for it.")]
            return [*waiting, *_limits(run, now)]
        case RunStatus.RUNNING:
            return [*_running(run, pipeline, blocks, now), *_limits(run, now)]
        case RunStatus.COMPLETED:
            took = span(run.started_at, run.completed_at)
            return [Reason("completed", f"It completed{took and f' in {took}'}."), *_limits(run, now)]
        case _:
            return list(_ended(run, blocks))


def _running(run: RunRow, pipeline: Pipeline, blocks: Sequence[BlockRow], now: datetime) -> Iterator[Reason]:
    if run.cancel_requested_at is not None:
        asked = {"cancel_requested_at": run.cancel_requested_at}
        yield Reason("is_stopping", "It was asked to stop, and its blocks are being ended.", asked)
    by_status = sorted((_doing(block, pipeline, blocks, now) for block in blocks), key=lambda r: r[0])
    yield from (reason for _rank, reason in by_status if reason is not None)
    facts = {"node": run.owner, "epoch": run.epoch, "started_at": run.started_at}
    yield Reason("runs_on_node", f"Node {run.owner} runs it since {run.started_at:%H:%M:%SZ}.", facts)
    if run.recoveries:
        text = f"It was taken over {run.recoveries} times from a node that stopped or died."
        yield Reason("was_taken_over", text, {"recoveries": run.recoveries})


def _doing(
    block: BlockRow, pipeline: Pipeline, blocks: Sequence[BlockRow], now: datetime
) -> tuple[int, Reason | None]:
    """What a block of a running run does, with its rank: running ones are told first."""
    facts: dict[str, Any] = {"block_uuid": block.block_uuid, "attempt": block.attempt}
    name = f"Block '{block.block_uuid}'"
    if block.wake_at is not None and block.status in (B.RUNNING, B.QUEUED):
        facts |= {"wake_at": block.wake_at, "left_s": _seconds(block.wake_at - now)}
        if block.status is B.RUNNING:
            text = f"{name} is a sensor; it is asked again at {block.wake_at:%H:%M:%SZ}."
            return 1, Reason("sensor_waits", text, facts)
        text = f"{name} failed in attempt {block.attempt} and is tried again at {block.wake_at:%H:%M:%SZ}."
        return 1, Reason("retry_waits", text, facts | {"max_attempts": block.max_attempts})
    if block.status is B.RUNNING:
        begun = block.attempts[-1].started_at if block.attempts else block.started_at
        facts |= {"started_at": begun, "running_s": _seconds(now - begun) if begun else None}
        took = span(begun, now)
        return 0, Reason("block_runs", f"{name} runs{took and f' for {took}'}.", facts)
    if block.status is B.QUEUED:
        return 2, Reason("block_queued", f"{name} is ready and waits for a free worker.", facts)
    if block.status is B.INITIAL:
        return _not_begun(block, pipeline, blocks)
    return 9, None


def _not_begun(block: BlockRow, pipeline: Pipeline, blocks: Sequence[BlockRow]) -> tuple[int, Reason]:
    status = {other.block_uuid: other.status for other in blocks}
    known = pipeline.by_uuid.get(block.block_uuid)
    open_ = [up for up in (known.upstream if known else ()) if status.get(up) not in BLOCK_SATISFIED]
    facts = {"block_uuid": block.block_uuid, "upstream_blocks": open_}
    if not open_:
        return 2, Reason("block_queued", f"Block '{block.block_uuid}' is ready and has not started.", facts)
    text = f"Block '{block.block_uuid}' waits for {', '.join(open_)}."
    return 3, Reason("waits_for_upstream", text, facts)


def _limits(run: RunRow, now: datetime) -> Iterator[Reason]:
    """The time a run has left, and an SLA that has passed."""
    if run.status is RunStatus.RUNNING and run.deadline_at is not None:
        left = _seconds(run.deadline_at - now)
        facts: dict[str, Any] = {"deadline_at": run.deadline_at, "left_s": left, "timeout_s": run.timeout_s}
        yield Reason("timeout_left", f"Its timeout ends it at {run.deadline_at:%H:%M:%SZ}.", facts)
    if run.passed_sla or run.sla_passed_at is not None:
        facts = {"sla_at": run.sla_at, "sla_passed_at": run.sla_passed_at}
        yield Reason("sla_passed", "It has passed its SLA.", facts)
    elif run.sla_at is not None and run.status not in RUN_TERMINAL:
        facts = {"sla_at": run.sla_at, "left_s": _seconds(run.sla_at - now)}
        yield Reason("sla_left", f"Its SLA passes at {stamp(run.sla_at)}.", facts)


def _ended(run: RunRow, blocks: Sequence[BlockRow]) -> Iterator[Reason]:
    """Why a run failed or was cancelled: its own reason, then the block that failed first and what it pulled down."""
    failed = sorted(
        (block for block in blocks if block.status is B.FAILED),
        key=lambda b: b.completed_at or run.created_at,
    )
    reason = run.status_reason or ""
    if not (reason.startswith("block_failed") and failed):
        yield _own_end(run, reason)
    yield from (_failed(run, block) for block in failed[:5])
    if len(failed) > 5:
        yield Reason("more_failed", f"{len(failed) - 5} more blocks failed.", {"count": len(failed) - 5})
    if hurt := [b.block_uuid for b in blocks if b.status in (B.UPSTREAM_FAILED, B.CONDITION_FAILED)]:
        yield Reason("never_started", f"Never started because of that: {', '.join(hurt)}.", {"blocks": hurt})
    if stopped := [b.block_uuid for b in blocks if b.status is B.CANCELLED and b.attempt]:
        yield Reason("stopped", f"Stopped while running: {', '.join(stopped)}.", {"blocks": stopped})


def _own_end(run: RunRow, reason: str) -> Reason:
    said = f"Its reason: {reason}." if reason else f"It {run.status} without saying why."
    code, text = _ENDS.get(reason, (str(run.status), said))
    facts: dict[str, Any] = {"status_reason": run.status_reason, **(run.status_detail or {})}
    if code == "parent_cancelled":
        facts["parent_run_id"] = run.parent_run_id
    if code == "cancel_requested":
        facts["cancel_requested_at"] = run.cancel_requested_at
    if code == "timeout":
        facts |= {"timeout_s": run.timeout_s, "deadline_at": run.deadline_at}
    return Reason(code, text, facts)


def _failed(run: RunRow, block: BlockRow) -> Reason:
    error = dict(block.error or {})
    where = f" ({error['file']}:{error['line']})" if error.get("file") and error.get("line") else ""
    said = (
        f"{error['type']}: {error.get('message')}".splitlines()[0]
        if error.get("type")
        else block.status_reason
    )
    tries = f" in attempt {block.attempt} of {block.max_attempts}" if block.max_attempts > 1 else ""
    facts = {
        "block_uuid": block.block_uuid,
        "block_run_id": block.id,
        "attempt": block.attempt,
        "max_attempts": block.max_attempts,
        "outcome": block.attempts[-1].outcome if block.attempts else None,
        "error": {name: error.get(name) for name in ("type", "message", "file", "line")},
        "log": f"/api/v1/block_runs/{block.id}/logs",
        "hint": f"runwright runs logs {run.id} --block {block.block_uuid}",
    }
    return Reason("block_failed", f"Block '{block.block_uuid}' failed{tries}: {said}{where}.", facts)


def _seconds(span_: timedelta) -> float:
    return round(span_ / timedelta(seconds=1), 3)
