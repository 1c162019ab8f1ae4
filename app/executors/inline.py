"""Trusted `async def` blocks as tasks on the service's own loop: JSON in and out, no process, no isolation."""

import asyncio
import sys
from collections.abc import Mapping
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import structlog

from app.executors.base import BlockCall, BlockError, BlockResult, OnAsk
from app.executors.capture import InlineOutput, StdoutByContext
from app.executors.child import attempt, calling, faults, outputs, packs, shim
from app.executors.child.loading import BlockFile, Loaded
from app.executors.output import Sink
from app.executors.permits import Permits
from app.executors.watchdog import Watchdog
from app.executors.worker import Kill
from app.models.states import Outcome

log = structlog.get_logger(__name__)

#: how long a task that swallows its cancellation is asked again before it is left behind
STUBBORN_S = 5.0
_ASK_EVERY_S = 0.05


class NotInline(faults.BlockFault):
    """The block cannot run inline."""


class InlineExecutor:
    """The executor for `isolation: inline`. At most `limit` blocks at a time; `python` means nothing here."""

    def __init__(self, *, project: Path, limit: int) -> None:
        self._project = str(project.resolve())
        self._paths = [self._project, str(project.resolve().parent)]
        self._permits = Permits(limit)
        self.watchdog = Watchdog()
        self._stdout = StdoutByContext()
        self._started = False
        self._tasks: set[asyncio.Task[BlockResult]] = set()

    async def start(self) -> None:
        """Make the project and the decorators importable, watch the loop."""
        # At the end of the path: in the service's own process our modules come first.
        self._paths = [path for path in self._paths if path not in sys.path]
        sys.path += self._paths
        shim.install(self._project)
        self.watchdog.start()
        self._started, self._loop = True, asyncio.get_running_loop()

    def cut(self) -> None:
        """Cancel what still runs as soon as the loop turns; a block that holds the loop is the watchdog's."""
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._cancel_all)

    def _cancel_all(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def stop(self) -> None:
        """Cancel what still runs and undo what `start` did."""
        if not self._started:
            return
        self._started = False
        self._cancel_all()
        if self._tasks:
            _done, pending = await asyncio.wait(self._tasks, timeout=STUBBORN_S)
            if pending:
                log.error("inline blocks do not end", blocks=[task.get_name() for task in pending])
        self.watchdog.stop()
        self._stdout.uninstall()
        shim.uninstall()
        sys.path[:] = [path for path in sys.path if path not in self._paths]

    async def acquire(self, python: str | None = None) -> "InlineSlot":
        """Wait for a slot; first come, first served."""
        await self._permits.take()
        return InlineSlot(self)

    def acquire_now(self, python: str | None = None) -> "InlineSlot | None":
        """A slot if one is free this instant."""
        return InlineSlot(self) if self._permits.take_now() else None

    def begin(self, call: BlockCall, output: InlineOutput) -> asyncio.Task[BlockResult]:
        """The attempt as a task, which the executor keeps until it has ended."""
        task = asyncio.create_task(_attempt(call, output, self.watchdog), name=call.block.uuid)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        self._stdout.install()
        return task

    def _ended(self, task: asyncio.Task[BlockResult]) -> None:
        self._tasks.discard(task)
        if not self._tasks:
            self._stdout.uninstall()

    def end_slot(self) -> None:
        """A slot's place is free again."""
        self._permits.give()


class InlineSlot:
    """One place for an inline block."""

    def __init__(self, executor: InlineExecutor) -> None:
        self._executor = executor
        self._task: asyncio.Task[BlockResult] | None = None
        self._kill: Kill | None = None
        self._abandoned: asyncio.Future[None] | None = None

    async def run(self, call: BlockCall, on_line: Sink, on_ask: OnAsk | None = None) -> BlockResult:
        """Run one attempt; see `Slot.run`."""
        self._kill = None
        self._abandoned = asyncio.get_running_loop().create_future()
        output = InlineOutput(on_line)
        task = self._task = self._executor.begin(call, output)
        await asyncio.wait((task, self._abandoned), return_when=asyncio.FIRST_COMPLETED)
        output.close()
        return self._result(task)

    async def kill(self, outcome: Outcome, reason: str) -> None:
        """Cancel the attempt in flight; one that swallows it for 5 s is left behind and counted as a survivor."""
        task = self._task
        if task is None or task.done():
            return
        self._kill = self._kill or Kill(outcome, reason)
        for _ in range(int(STUBBORN_S / _ASK_EVERY_S)):
            task.cancel()
            if (await asyncio.wait((task,), timeout=_ASK_EVERY_S))[0]:
                return
        if self._abandoned is not None and not self._abandoned.done():
            self._abandoned.set_result(None)

    def lend(self) -> None:
        """An inline block asks nothing, so it never only waits."""

    async def reclaim(self) -> None:
        """Nothing was lent."""

    def release(self) -> None:
        """Give the place back."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
        self._executor.end_slot()

    def _result(self, task: asyncio.Task[BlockResult]) -> BlockResult:
        if self._kill is not None:
            facts = {"reason": self._kill.reason, "asked_at": self._kill.asked_at, "cause": "kill"}
            return BlockResult(self._kill.outcome, evidence=facts | {"survivors": int(not task.done())})
        if task.cancelled():
            return BlockResult(
                Outcome.CANCELLED, evidence={"cause": "kill", "reason": "its slot was released"}
            )
        return task.result()


async def _attempt(call: BlockCall, output: InlineOutput, watchdog: Watchdog) -> BlockResult:
    """One attempt, from file to outputs; whatever the block raises is the result."""
    output.become_current()
    task = asyncio.current_task()
    code_hash = None
    try:
        with watchdog.watching():
            file = BlockFile(str(call.project), call.block.file)
            code_hash = file.hash
            result = await _run_block(call, file, output)
    except BaseException as error:
        # SystemExit and LoopHeld too: nothing that a block raises may reach the loop. Only our own cancel does.
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            raise
        path = str(call.project / call.block.file)
        described = faults.describe(error, str(call.project), path)
        return BlockResult(Outcome.FAILED, error=BlockError(**described), code_hash=code_hash)
    return BlockResult(Outcome.COMPLETED, code_hash=code_hash, **result)


async def _run_block(call: BlockCall, file: BlockFile, output: InlineOutput) -> dict[str, Any]:
    inputs = [(uuid, _input(refs, uuid)) for uuid, refs in call.inputs]
    values = [value for _uuid, value in inputs]
    loaded = Loaded(file, call.block.uuid, str(call.block.type), inputs)
    try:
        if not calling.is_coroutine_function(loaded.function):
            raise NotInline("isolation: inline needs an `async def` function; a `def` block runs in a worker")
        kwargs = attempt.keywords(_as_mapping(call), output.log)
        for function in loaded.functions("preprocesser"):
            await _call(function, *calling.arguments(function, values, kwargs, lenient=True))
        returned = await _call(loaded.function, *attempt.prepare(loaded, values, kwargs))
        if loaded.kind == "sensor":
            return {"value_false": not returned}
        results = calling.as_outputs(returned)
        refs = [packs.store_inline(returned)] if call.block.dynamic.parent else outputs.store_inline(results)
        await _run_tests(loaded, results, kwargs)
        return {"outputs": tuple(refs)}
    finally:
        loaded.unregister()


async def _run_tests(loaded: Loaded, results: list[Any], kwargs: dict[str, Any]) -> None:
    verdict = attempt.TestRun(loaded)
    for function in verdict.functions:
        with verdict.judging(function):
            await _call(function, *calling.test_arguments(function, results, kwargs))
    verdict.conclude()


async def _call(function: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
    value = function(*args, **kwargs)
    return await value if hasattr(type(value), "__await__") else value


def _input(refs: Any, uuid: str) -> Any:
    if not outputs.is_plain(refs):
        raise NotInline(f"the output of block '{uuid}' is no JSON value: run this block in a worker")
    # A copy: what the block does to it must not reach the reference that the engine holds.
    return deepcopy(outputs.open_input(list(refs), "", uuid))


def _as_mapping(call: BlockCall) -> Mapping[str, Any]:
    return {
        "kwargs": deepcopy({**call.kwargs, **packs.kwargs_of(packs.metas_of(list(call.inputs), ""))}),
        "item": call.item,
        "datetimes": call.datetimes,
        "tries": call.tries,
        "configuration": deepcopy(dict(call.block.configuration)),
        "pipeline": call.pipeline_uuid,
        "block": call.block.uuid,
        "project": str(call.project),
    }
