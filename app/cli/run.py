"""`runwright run`: an engine of its own in this process, one run, its log, and an exit code."""

import asyncio
import signal
from pathlib import Path
from typing import Any

from app.cli.exits import Exit, say
from app.cli.follow import Follower, view_for_terminal
from app.cli.logs import configure_logging
from app.cli.own import end_leftovers, forget_old_runs, own_settings
from app.cli.project import open_project, prepare_home
from app.cli.variables import runtime_variables
from app.models.rows import BlockRow, RunRow
from app.models.states import BlockStatus, Cause, RunStatus
from app.scheduler.build import build_engine
from app.scheduler.engine import Engine, running
from app.scheduler.launch import LaunchRequest
from app.settings import Settings
from app.store import runs


def run_once(folder: Path, pipeline_uuid: str, runtime_vars: str | None = None, **parts: Any) -> int:
    """Run a pipeline to its end; the exit code. `parts` are fields of LaunchRequest. Raises what the engine refuses."""
    variables = runtime_variables(runtime_vars)
    _, settings = open_project(folder)
    configure_logging("warning")
    prepare_home(settings.home)
    asked = LaunchRequest(
        pipeline_uuid=pipeline_uuid,
        variables=variables,
        **parts,
        cause=Cause.CLI,
    )
    return asyncio.run(_Once(settings, asked).run())


class _Once:
    """One run and the signals that may end it."""

    def __init__(self, service: Settings, asked: LaunchRequest) -> None:
        self._service = service
        self._settings = own_settings(service)
        self._asked = asked
        self._interrupted = asyncio.Event()
        self._signal = signal.SIGINT

    async def run(self) -> int:
        engine = build_engine(self._settings, scheduling=False, borrow=self._service)
        self._handle_signals()
        await end_leftovers(self._settings)
        async with running(engine, drain_s=0):
            follower = Follower(engine, view_for_terminal())
            with follower.listening():
                run = await engine.launch(self._asked)
                async with asyncio.TaskGroup() as group:
                    watch = group.create_task(self._cancel_when_interrupted(engine, run.id))
                    await follower.follow(run)
                    watch.cancel()
            await forget_old_runs(engine, run.pipeline_uuid)
            return await self._verdict(engine, run.id)

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupt, number)

    def _interrupt(self, number: signal.Signals) -> None:
        if self._interrupted.is_set():  # asked twice: leave at once; the warden kills what still runs
            loop = asyncio.get_running_loop()
            loop.remove_signal_handler(number)
            signal.raise_signal(number)
        self._signal = number
        self._interrupted.set()

    async def _cancel_when_interrupted(self, engine: Engine, run_id: int) -> None:
        await self._interrupted.wait()
        await engine.cancel(run_id)

    async def _verdict(self, engine: Engine, run_id: int) -> int:
        run = await engine.db.read(runs.get, run_id)
        assert run is not None
        if run.status is RunStatus.COMPLETED:
            return Exit.OK
        if self._interrupted.is_set():
            say("interrupted; the run was cancelled")
            return 128 + self._signal
        for line in explain(run, await engine.db.read(runs.blocks, run_id)):
            say(line)
        return Exit.FAILED


def explain(run: RunRow, blocks: list[BlockRow]) -> list[str]:
    """Why a run did not complete, one line a block that failed."""
    failed = [block for block in blocks if block.status is BlockStatus.FAILED]
    lines = [f"block '{block.block_uuid}' failed: {_fault(block)}" for block in failed]
    return lines or [f"run {run.status}" + (f": {run.status_reason}" if run.status_reason else "")]


def _fault(block: BlockRow) -> str:
    error = block.error
    if not error:
        return block.status_reason or "no error was reported"
    text = f"{error.get('type') or 'Error'}: {error.get('message') or ''}".rstrip(": ")
    if error.get("file"):
        line = f":{error['line']}" if error.get("line") else ""
        return f"{text} ({error['file']}{line})"
    return text
