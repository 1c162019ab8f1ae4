"""What a pass of pruning would forget now, without forgetting it."""

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Final

from app import artifacts, clock
from app.scheduler import retention
from app.scheduler.pruner import Pruner
from app.settings import Settings
from app.store import pruning
from app.store.db import Database

_PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What would go of one pipeline. Sizes in bytes: logs as text, files as they lie there."""

    pipeline_uuid: str
    runs: int = 0
    block_runs: int = 0
    #: runs that stay, and lose their logs or the files of their outputs
    logs_of_runs: int = 0
    outputs_of_runs: int = 0
    log_bytes: int = 0
    file_bytes: int = 0


async def foresee(db: Database, pruner: Pruner, settings: Settings) -> tuple[list[Foreseen], int]:
    """What would go of each pipeline, and how many slots that made no run.

    What stays now because a run that goes points at it is not counted: it goes in the round after.
    """
    found = [await _pipeline(db, pruner, settings, uuid) for uuid in await db.read(pruning.pipelines)]
    before = retention.ago(clock.now(), retention.days(settings.keep_slots_days))
    slots, place = 0, pruning.FIRST_SLOT
    while before is not None and (
        page := await db.read(pruning.old_slots, before=before, after=place, limit=_PAGE)
    ):
        slots, place = slots + len(page), page[-1]
    return [one for one in found if one != Foreseen(one.pipeline_uuid)], slots


async def _pipeline(db: Database, pruner: Pruner, settings: Settings, uuid: str) -> Foreseen:
    if (kept := pruner.kept(uuid)) is None:
        return Foreseen(uuid)
    now = clock.now()
    edge = await db.read(pruning.edge, uuid, before=retention.ago(now, kept.runs), keep=kept.newest)
    gone: set[int] = set()
    if edge is not None:
        gone = await _all(db, partial(pruning.old_runs, pipeline_uuid=uuid, before=edge))
    ages = [at for at in (edge, retention.ago(now, kept.logs)) if at is not None]
    logs, files = set[int](), set[int]()
    if ages:
        logs = await _all(db, partial(pruning.with_logs, pipeline_uuid=uuid, before=max(ages)))
    if (outputs := retention.ago(now, kept.outputs)) is not None:
        files = await _all(db, partial(pruning.with_files, pipeline_uuid=uuid, before=outputs))
    weights = await db.read(pruning.weigh, gone), await db.read(pruning.weigh, logs - gone)
    return Foreseen(
        uuid,
        runs=len(gone),
        block_runs=weights[0].block_runs,
        logs_of_runs=len(logs - gone),
        outputs_of_runs=len(files - gone),
        log_bytes=weights[0].log_bytes + weights[1].log_bytes,
        file_bytes=await asyncio.to_thread(artifacts.size, settings.artifacts, gone | files),
    )


async def _all(db: Database, find: "partial[list[pruning.RunAt]]") -> set[int]:
    found: set[int] = set()
    after = pruning.FIRST_RUN
    while page := await db.read(partial(find, after=after, limit=_PAGE)):
        found.update(run_id for _at, run_id in page)
        after = page[-1]
    return found
