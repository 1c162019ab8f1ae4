"""A retry is a new run: it carries over what is finished and runs the rest again, with the pipeline as it is now."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from app.errors import Conflict, FieldError, RunNotFound, UnknownBlock
from app.models.pipeline import Pipeline
from app.models.rows import BlockRow, RunRow, ScheduleRow
from app.models.states import RUN_TERMINAL, BlockStatus, Cause
from app.pipelines.catalogue import Catalogue
from app.pipelines.files import digest
from app.scheduler.launch import Carried, LaunchRequest, narrowed
from app.store import runs, schedules
from app.store.db import Database, dumps
from app.store.pruning import GONE

_UNFINISHED = frozenset({BlockStatus.FAILED, BlockStatus.UPSTREAM_FAILED, BlockStatus.CANCELLED})

#: What a retry does with outputs of code that has changed since: keep them, or make them anew.
Changed = Literal["accept", "rerun"]


class CodeChanged(Conflict):
    """Blocks that would be carried over have other code now than what made their outputs."""

    code, title = "code_changed", "Code has changed"


@dataclass(frozen=True, slots=True)
class RetryPlan:
    """What a retry launches."""

    request: LaunchRequest
    schedule: ScheduleRow | None
    carried: Carried
    extra: Mapping[str, Any]


def rerun(pipeline: Pipeline, finished: Sequence[str], source: str) -> set[str]:
    """Blocks that run again: what did not finish, or is asked for, and everything below it.

    >>> from app.models.pipeline import Block, BlockType
    >>> a, b, c = (Block(u, BlockType.CUSTOM, u, upstream=up) for u, up in (("a", ()), ("b", ("a",)), ("c", ())))
    >>> sorted(rerun(Pipeline("p", (a, b, c)), ["a", "c"], "failed"))
    ['b']
    >>> sorted(rerun(Pipeline("p", (a, b, c)), ["a", "b", "c"], "a"))
    ['a', 'b']
    """
    again: set[str] = set()
    for block in pipeline.blocks:  # upstreams first: one pass reaches the bottom
        unfinished = block.uuid not in finished
        if source == "start" or block.uuid == source or unfinished or again.intersection(block.upstream):
            again.add(block.uuid)
    return again


async def plan(
    db: Database,
    catalogue: Catalogue,
    run_id: int,
    *,
    source: str,
    variables: Mapping[str, Any] | None,
    changed: Changed | None = None,
) -> RetryPlan:
    """Plan the retry of a run. `changed`: what is done with finished blocks whose code is not what it was.

    Raises RunNotFound, Conflict, CodeChanged, UnknownBlock, PipelineNotFound, PipelineInvalid.
    """
    old = await db.read(runs.get, run_id)
    if old is None:
        raise RunNotFound(f"there is no pipeline run {run_id}")
    if old.status not in RUN_TERMINAL:
        raise Conflict(f"run {run_id} is {old.status}", hint="wait for its end, or cancel it, then retry")
    request = _request(old, variables)
    pipeline = narrowed(catalogue.get(old.pipeline_uuid), request)
    if source not in ("failed", "start") and source not in pipeline.by_uuid:
        known = ", ".join(block.uuid for block in pipeline.blocks)
        raise UnknownBlock(
            f"run {run_id} has no block '{source}'", hint=f"'failed', 'start', or one of: {known}"
        )
    carried, anew = await _kept(db, catalogue.root, pipeline, old.id, request, source, changed)
    root = await db.read(runs.retry_root, run_id)
    schedule = None
    if old.pipeline_schedule_id is not None:
        schedule = await db.read(schedules.get, old.pipeline_schedule_id)
    return RetryPlan(
        replace(request, anew=anew),
        schedule,
        carried,
        {"retry_of": old.id, "retry_root": root or old.id},
    )


async def _kept(
    db: Database,
    root: Path,
    pipeline: Pipeline,
    run_id: int,
    request: LaunchRequest,
    source: str,
    changed: Changed | None,
) -> tuple[Carried, tuple[str, ...]]:
    """What is taken over of a run, and the blocks of which no child is. Raises CodeChanged."""
    blocks = await db.read(runs.blocks, run_id, attempts=False)
    only = None if request.with_upstream else request.block_uuid
    carried = _carried(pipeline, blocks, source, only=only)
    asked = (source,) if source in pipeline.by_uuid else ()
    if changed == "accept" or only is not None:
        return carried, asked
    kept = {uuid: block_id for uuid, (block_id, _outputs) in carried.items()}
    kept |= _partly(pipeline, blocks, carried, source)
    different = await _changed(db, root, pipeline, kept)
    if not different:
        return carried, asked
    if changed is None:
        raise _code_changed(run_id, pipeline, different)
    return _carried(pipeline, blocks, source, only=only, anew=different), (*asked, *different)


def _partly(pipeline: Pipeline, blocks: Sequence[BlockRow], carried: Carried, source: str) -> dict[str, int]:
    """Blocks that ran once an item and failed: those children that completed are carried over, if they may be."""
    return {
        b.block_uuid: b.id
        for b in blocks
        if b.children and b.block_uuid in pipeline.by_uuid and b.block_uuid not in carried
        if b.block_uuid != source and carried.keys() >= set(pipeline.by_uuid[b.block_uuid].upstream)
    }


async def _changed(db: Database, root: Path, pipeline: Pipeline, kept: Mapping[str, int]) -> list[str]:
    """Blocks whose file is not what it was when what is kept of them was made. What they import is not looked at."""
    ran = await db.read(runs.code_hashes, list(kept.values()))
    files = {uuid: pipeline.by_uuid[uuid].file for uuid in kept if kept[uuid] in ran}
    now = await asyncio.to_thread(lambda: {uuid: digest(root, file) for uuid, file in files.items()})
    return [uuid for uuid, found in now.items() if found is not None and ran[kept[uuid]] != {found}]


def _code_changed(run_id: int, pipeline: Pipeline, different: Sequence[str]) -> CodeChanged:
    named = ", ".join(f"'{uuid}'" for uuid in different)
    return CodeChanged(
        f"since run {run_id} the code of finished blocks has changed: {named}",
        hint='retry with "changed": "rerun" to run them again, or "accept" to keep what they left',
        errors=[
            FieldError(f"/blocks/{uuid}", f"{pipeline.by_uuid[uuid].file} has changed") for uuid in different
        ],
    )


def _request(old: RunRow, variables: Mapping[str, Any] | None) -> LaunchRequest:
    return LaunchRequest(
        pipeline_uuid=old.pipeline_uuid,
        variables={**old.variables, **(variables or {})},
        event_variables=old.event_variables,
        execution_date=old.execution_date,
        block_uuid=old.options.get("block_uuid"),
        with_upstream=bool(old.options.get("with_upstream")),
        skip_sensors=bool(old.options.get("skip_sensors")),
        priority=old.priority,
        concurrency_key=old.concurrency_key,
        cause=Cause.RETRY,
    )


def _is_gone(block: BlockRow) -> bool:
    """Whether something it left is no longer kept: it runs again."""
    return any(output.get("kind") == GONE for output in block.outputs)


def _carried(
    pipeline: Pipeline,
    blocks: Sequence[BlockRow],
    source: str,
    *,
    only: str | None,
    anew: Collection[str] = (),
) -> Carried:
    """What is taken over; `anew` are finished blocks that run again all the same, with all below them."""
    # Where blocks may fail, one completes without some of its children.
    partly = {b.parent_id for b in blocks if b.status in _UNFINISHED}
    done = {
        b.block_uuid: b
        for b in blocks
        if b.status is BlockStatus.COMPLETED
        and b.block_uuid not in anew
        and b.id not in partly
        and not _is_gone(b)
    }
    satisfied = [*done, *(b.block_uuid for b in blocks if b.status is BlockStatus.SKIPPED)]
    again = rerun(pipeline, satisfied, source)
    if only is not None:  # a run of one block: what it reads from was never run by it
        again &= {only}
    return {
        uuid: (block.id, dumps(list(block.outputs)))
        for uuid, block in done.items()
        if uuid not in again and uuid in pipeline.by_uuid
    }
