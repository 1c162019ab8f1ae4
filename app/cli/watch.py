"""`runwright runs watch`: a run of a service, shown as `runwright run` shows its own."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from heapq import heappop, heappush
from itertools import count
from typing import Final

from app import clock
from app.cli.exits import Exit, say
from app.cli.follow import Graph, view_for_terminal
from app.cli.service import Service, find_service
from app.client import AsyncClient, BlockRun, NotFound, PipelineRun, RunEvent
from app.events import BlockEnded, BlockStarted
from app.models.rows import BlockRow, LogRow, RunRow
from app.models.states import BlockStatus, Outcome, RunStatus

#: What has come waits so long for what happened before it and comes later, by the other stream.
_HOLD_S: Final = 0.3
_RUN_FIELDS: Final = {
    "id",
    "pipeline_uuid",
    "cause",
    "execution_date",
    "status",
    "status_reason",
    "created_at",
    "started_at",
    "completed_at",
}
_BLOCK_FIELDS: Final = {"id", "pipeline_run_id", "block_uuid", "status", "attempt", "started_at", "error"}


def watch(server: str | None, run_id: int, timeout_s: float | None) -> int:
    """Show a run until it is over; the exit code says how it ended."""
    return follow(find_service(server), run_id, timeout_s)


def follow(service: Service, run_id: int, timeout_s: float | None = None) -> int:
    """The same, of a service that was found already."""
    try:
        return asyncio.run(_follow(service, run_id, timeout_s))
    except TimeoutError:
        say(f"run {run_id} is not over after {timeout_s:g} s; it goes on")
        return Exit.TIMEOUT
    except KeyboardInterrupt:
        say(f"run {run_id} goes on", hint=f"Look again: runwright runs watch {run_id}")
        return Exit.INTERRUPTED


async def _follow(service: Service, run_id: int, timeout_s: float | None) -> int:
    async with service.async_client() as client:
        run = await client.run(run_id)
        graph = await _graph(client, run)
    async with asyncio.timeout(timeout_s), service.async_client(patient=True) as client:
        return await _Watch(client, run, graph).run()


async def _graph(client: AsyncClient, run: PipelineRun) -> Graph:
    try:
        pipeline = await client.pipeline(run.pipeline_uuid)
    except NotFound:  # taken away since
        return {}
    known = {block.block_uuid for block in run.block_runs or ()}
    blocks = [block for block in pipeline.blocks if block.uuid in known]
    return {block.uuid: [name for name in block.upstream_blocks if name in known] for block in blocks}


class _Watch:
    """One run and its view. Lines and events come in two streams; they are shown in the order of their times."""

    def __init__(self, client: AsyncClient, run: PipelineRun, graph: Graph) -> None:
        self._client, self._run, self._graph = client, run, graph
        self._view = view_for_terminal(lambda: self._at)
        #: when what is being shown happened
        self._at = run.created_at
        self._held: list[tuple[datetime, int, float, Callable[[], None]]] = []
        self._count = count()
        self._began: dict[str, datetime] = {}

    async def run(self) -> int:
        """Show it to its end."""
        self._view.begin(_run_row(self._run), _block_rows(self._run.block_runs), self._graph)
        try:
            await self._show()
        except asyncio.CancelledError:
            self._view.end(_run_row(self._run), [])  # gives the terminal back
            raise
        ended = await self._client.run(self._run.id)
        self._at = ended.completed_at or self._at
        self._view.end(_run_row(ended), _block_rows(ended.block_runs))
        return Exit.OK if ended.status == RunStatus.COMPLETED else Exit.FAILED

    async def _show(self) -> None:
        async with asyncio.TaskGroup() as group:
            ticks = group.create_task(self._ticks())
            async with asyncio.TaskGroup() as streams_group:
                streams_group.create_task(self._lines())
                streams_group.create_task(self._events())
            ticks.cancel()
        self._show_held(clock.monotonic())

    async def _ticks(self) -> None:
        while True:
            await asyncio.sleep(self._view.tick_s or _HOLD_S)
            self._show_held(clock.monotonic() - _HOLD_S)
            self._view.tick()

    def _hold(self, at: datetime, show: Callable[[], None]) -> None:
        heappush(self._held, (at, next(self._count), clock.monotonic(), show))

    def _show_held(self, until: float) -> None:
        """Show what came before `until`: what belongs before it has come as well."""
        while self._held and self._held[0][2] <= until:
            self._at, _, _, show = heappop(self._held)
            show()

    async def _lines(self) -> None:
        async for line in self._client.follow_logs(self._run.id):
            self._hold(line.at, partial(self._view.log, LogRow(**line.model_dump())))

    async def _events(self) -> None:
        async for event in self._client.follow_events(self._run.id):
            if event.block_uuid is None:
                continue
            if event.type == "block_started":
                self._began[event.block_uuid] = event.at
                started = BlockStarted(
                    run_id=self._run.id, block_uuid=event.block_uuid, attempt=event.attempt or 0
                )
                self._hold(event.at, partial(self._view.started, started))
            elif event.type == "block_ended":
                took = event.at - self._began.get(event.block_uuid, event.at)
                ended = await self._ended(event, event.block_uuid, took.total_seconds())
                self._hold(event.at, partial(self._view.ended, ended))

    async def _ended(self, event: RunEvent, block_uuid: str, took_s: float) -> BlockEnded:
        """What the end of an attempt made of its block: the block run says it."""
        run = await self._client.run(self._run.id)
        block = next(block for block in run.block_runs or () if block.block_uuid == block_uuid)
        attempt = next((one for one in block.attempts if one.attempt == event.attempt), None)
        tries_again = block.attempt > (event.attempt or 0)
        return BlockEnded(
            run_id=run.id,
            block_uuid=block_uuid,
            status=BlockStatus.QUEUED if tries_again else block.status,
            attempt=event.attempt or 0,
            outcome=Outcome(event.status) if event.status else None,
            error=attempt.error if attempt else None,
            duration_s=took_s,
        )


def _run_row(run: PipelineRun) -> RunRow:
    return RunRow(pipeline_hash="", **run.model_dump(include=_RUN_FIELDS))


def _block_rows(blocks: Sequence[BlockRun] | None) -> list[BlockRow]:
    return [BlockRow(**block.model_dump(include=_BLOCK_FIELDS)) for block in blocks or ()]
