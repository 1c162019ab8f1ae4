"""The runs of one test: started, driven by the service's own `Runner`, waited for, and told of."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

from app import clock
from app.events import Bus
from app.executors.base import OutputRef
from app.models.pipeline import Block, BlockType, Pipeline
from app.models.rows import BlockRow, RunRow, ScheduleRow
from app.models.states import BlockStatus, Cause, RunStatus
from app.pipelines.catalogue import Catalogue, TriggerEntry
from app.scheduler import launch as launching
from app.scheduler.ahead import row_of
from app.scheduler.borrow import located
from app.scheduler.launch import LaunchRequest
from app.scheduler.runner import Runner
from app.scheduler.runstate import RunState, of_rows
from app.scheduler.shown import shown
from app.scheduler.tools import Hooks, Tools
from app.store.journal import Journal
from app.store.runs import Resumed
from app.testing.answers import Answers
from app.testing.record import Record
from app.testing.stage import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a test says besides what it runs."""

    catalogue: Catalogue
    env: str = "prod"
    #: pipeline -> how its runs ended, for those that are not to run here
    others: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    #: question of a block -> function of its payload
    answers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Going:
    """A run of the test."""

    state: RunState
    began: datetime
    parent: int | None = None
    task: asyncio.Task[None] | None = None
    ended: datetime | None = None
    #: how it ended, of one that does not run here
    told: RunStatus | None = None


class World:
    """`artifacts` is a folder that the test removes."""

    def __init__(self, around: Surroundings, stage: Stage, artifacts: Path) -> None:
        self.around, self.stage = around, stage
        self.others, self.secrets = around.others, around.secrets
        self.record = Record()
        self.runs: dict[int, Going] = {}
        self._ids = count(1)
        self.journal = Journal(self.record)
        self.tools = Tools(
            journal=self.journal,
            bus=Bus(),
            workers=stage,
            inline=None,
            project=around.catalogue.root,
            artifacts=artifacts,
            python=lambda: None,
            env=around.env,
            hooks=Hooks(
                answer=Answers(self, around.answers).answer,
                cancel=self._cancel,
                block_ids=self._take_ids,
                may_act=lambda: True,
            ),
        )

    async def _take_ids(self, number: int) -> Sequence[int]:
        return [next(self._ids) for _ in range(number)]

    async def _cancel(self, run_id: int) -> None:
        if (task := self.runs[run_id].task) is not None:
            task.cancel()

    def start(
        self,
        request: LaunchRequest,
        parent: int | None = None,
        trigger: TriggerEntry | None = None,
        lenient: bool = False,
    ) -> int:
        """Start a run; its id. `lenient` is `allow_blocks_to_fail`.

        Raises PipelineNotFound, PipelineInvalid, InvalidInput.
        """
        pipeline = self.around.catalogue.get(request.pipeline_uuid)
        launching.check(request, pipeline)
        schedule = replace(row_of(trigger, now=clock.now()), id=1) if trigger else None
        run = self.row(pipeline, request, schedule, lenient)
        rows = tuple(self._block_row(block, run, request) for block in pipeline.blocks)
        going = Going(of_rows(Resumed(run, pipeline.definition, rows)), clock.now(), parent)
        self.runs[run.id] = going
        if parent is not None and pipeline.uuid in self.others:
            going.told, going.ended = RunStatus(self.others[pipeline.uuid]), clock.now()
        else:
            going.task = self.stage.loop.create_task(self._drive(going), name=f"run {run.id}")
        return run.id

    def row(
        self,
        pipeline: Pipeline,
        request: LaunchRequest,
        schedule: ScheduleRow | None = None,
        lenient: bool = False,
    ) -> RunRow:
        """The run as it would be on record once it has started."""
        now = clock.now()
        settings = schedule.settings if schedule else {}
        limit = settings.get("timeout")
        return RunRow(
            id=next(self._ids),
            pipeline_uuid=pipeline.uuid,
            pipeline_hash=pipeline.hash,
            cause=request.cause,
            execution_date=request.execution_date or now,
            status=RunStatus.RUNNING,
            created_at=now,
            started_at=now,
            epoch=1,
            pipeline_schedule_id=schedule.id if schedule else None,
            variables={**(schedule.variables if schedule else {}), **request.variables},
            event_variables=request.event_variables,
            options={
                **launching.options(pipeline, request, schedule, self.around.catalogue.project.week_start),
                **({"allow_blocks_to_fail": True} if lenient else {}),
            },
            deadline_at=now + timedelta(seconds=float(limit)) if limit else None,
            timeout_status=settings.get("timeout_status"),
        )

    def _block_row(self, block: Block, run: RunRow, request: LaunchRequest) -> BlockRow:
        skipped = request.skip_sensors and block.type is BlockType.SENSOR
        status = BlockStatus.SKIPPED if skipped else BlockStatus.INITIAL
        return BlockRow(id=next(self._ids), pipeline_run_id=run.id, block_uuid=block.uuid, status=status)

    async def _drive(self, going: Going) -> None:
        limit = going.state.pipeline.limits.block_run_limit
        ending = None
        while ending is None or ending.kind == "parked":
            if ending is not None and ending.wake_at is not None:
                wake_at = min(ending.wake_at, going.state.run.deadline_at or ending.wake_at)
                await asyncio.sleep(max(0.0, (wake_at - clock.now()) / timedelta(seconds=1)))
            permits = [asyncio.Semaphore(limit)] if limit else []
            ending = await Runner(self.tools, going.state, permits, {}).drive()
        going.ended = clock.now()
        self.stage.tell()

    async def wait(self, run_id: int, seconds: float) -> None:
        """Wait for the end of a run, at most so many virtual seconds."""
        if (task := self.runs[run_id].task) is not None:
            await asyncio.wait((task,), timeout=seconds)

    def status(self, run_id: int) -> RunStatus:
        """How a run stands."""
        going = self.runs[run_id]
        close = self.record.closed.get(run_id)
        return going.told or (close.status if close else RunStatus.RUNNING)

    def shown(self, run_id: int) -> dict[str, Any]:
        """A run as blocks see it."""
        going = self.runs[run_id]
        run = replace(going.state.run, status=self.status(run_id), completed_at=going.ended)
        return shown(run, going.state.statuses.items())

    def newest(self, pipeline_uuid: str) -> Mapping[str, Any] | None:
        """The newest run of a pipeline that a block of the test has started."""
        self.around.catalogue.get(pipeline_uuid)
        found = [i for i, going in self.runs.items() if going.state.pipeline.uuid == pipeline_uuid]
        return self.shown(found[-1]) if found else None

    def variables_of(self, pipeline_uuid: str) -> Mapping[str, Any]:
        """The variables of a pipeline's definition."""
        return self.around.catalogue.get(pipeline_uuid).variables

    def left(self, pipeline_uuid: str, block_uuid: str) -> Sequence[OutputRef]:
        """What a block left in the newest run of a pipeline here, files by their full path. Raises LookupError."""
        for going in reversed(self.runs.values()):
            block = going.state.blocks.get(block_uuid)
            if going.state.pipeline.uuid == pipeline_uuid and block and block.state is BlockStatus.COMPLETED:
                return [located(dict(ref), self.tools.artifacts) for ref in block.outputs]
        raise LookupError(f"block '{block_uuid}' of '{pipeline_uuid}' has left nothing in this test")

    async def close(self) -> None:
        """End whatever still goes on."""
        tasks = [going.task for going in self.runs.values() if going.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def request_of(pipeline_uuid: str, **asked: Any) -> LaunchRequest:
    """What a test asks for, as the doors would."""
    return LaunchRequest(pipeline_uuid=pipeline_uuid, cause=Cause.CLI, **asked)
