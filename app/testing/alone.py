"""One attempt of one block by itself."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from app.executors.base import Ask, BlockCall, LogLine
from app.executors.child import outputs
from app.models.pipeline import Block, BlockType, Pipeline
from app.models.rows import RunRow
from app.models.states import Outcome
from app.scheduler import launch as launching
from app.scheduler import variables
from app.scheduler.launch import LaunchRequest
from app.testing.record import fault_of
from app.testing.reporting import opened
from app.testing.reports import BlockReport, Line
from app.testing.world import World


class Alone:
    """A block of a pipeline, in a run that has nothing but this attempt."""

    def __init__(self, world: World, pipeline: Pipeline, block: Block, request: LaunchRequest) -> None:
        launching.check(request, pipeline)
        self._world, self._pipeline, self._block = world, pipeline, block
        self._run = world.row(pipeline, request, None)
        self._lines: list[Line] = []
        self._asked: set[asyncio.Task[None]] = set()

    async def run(self, inputs: Sequence[tuple[str, Any]], *, item: int | None, tries: int) -> BlockReport:
        """Run it with the inputs by upstream uuid; how it ended."""
        stored = [
            (uuid, outputs.store_all([value], f"inputs/{number}", str(self._world.tools.artifacts)))
            for number, (uuid, value) in enumerate(inputs)
        ]
        place = await self._world.stage.acquire(None)
        result = await place.run(self._call(stored, item, tries), self._on_line, self._on_ask)
        for task in self._asked:
            task.cancel()
        completed = result.outcome is Outcome.COMPLETED
        values, value = opened(self._world, result.outputs, self._block.uuid) if completed else ((), None)
        is_sensor = self._block.type is BlockType.SENSOR
        return BlockReport(
            uuid=self._block.uuid,
            status=str(result.outcome),
            outputs=values,
            output=value,
            error=fault_of(asdict(result.error) if result.error else None),
            logs=tuple(self._lines),
            met=not result.value_false if is_sensor and completed else None,
        )

    def _call(self, inputs: Sequence[tuple[str, Any]], item: int | None, tries: int) -> BlockCall:
        tools, run = self._world.tools, self._run
        kwargs, datetimes = variables.for_blocks(self._pipeline, run, env=tools.env)
        return BlockCall(
            run_id=run.id,
            block_run_id=run.id,
            attempt=tries,
            epoch=1,
            pipeline_uuid=self._pipeline.uuid,
            block=self._block,
            project=tools.project,
            artifact_dir=f"{run.id}/{self._block.uuid}/1.{tries}",
            artifacts=tools.artifacts,
            inputs=inputs,
            kwargs=kwargs,
            datetimes=datetimes,
            tries=tries,
            item=item,
        )

    def _on_line(self, line: LogLine) -> None:
        self._lines.append(Line(self._block.uuid, line.stream, line.level, line.text))

    def _on_ask(self, ask: Ask) -> None:
        self._asked.add(self._world.stage.loop.create_task(self._answer(self._run, ask)))

    async def _answer(self, run: RunRow, ask: Ask) -> None:
        payload: Mapping[str, Any] = ask.payload
        ask.answer(await self._world.tools.hooks.answer(run, ask.name, ask.name, payload))
