"""Conditions before a block and callbacks after it: which are due, decided purely, and the running of one.

A hook is an attempt of kind `hook` of its block run. It can not make a run hang: what it raises is told in the
block's log and kept on its attempt, and that is all. Which hooks are due follows from the rows alone, so a node
that takes a run over does what is left, and nothing twice that has ended.
"""

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Literal, Protocol

from app.events import Event
from app.executors.base import BlockCall, BlockResult, HookCall, LogLine
from app.models.pipeline import Hook
from app.models.rules import Never
from app.models.states import BlockStatus, Outcome
from app.scheduler import steps
from app.scheduler.answering import Answering
from app.scheduler.calls import run_within
from app.scheduler.loglines import lines_of
from app.scheduler.places import Places
from app.scheduler.progress import MAX_LOST
from app.scheduler.runstate import BlockState, RunState
from app.scheduler.shown import shown
from app.scheduler.steps import StopWhy
from app.scheduler.tools import Held, Tools
from app.scheduler.writing import Writing
from app.store.units import Finish, Start, Unit, Verdict

Told = Literal["success", "failure", "cancelled"]

#: Seconds that a callback may take in a run that was cancelled or has timed out.
AFTER_STOP_S = 60.0


def condition_name(hook: Hook) -> str:
    """What the attempt of a condition is called."""
    return f"condition:{hook.uuid}"


def due_conditions(block: BlockState) -> list[Hook]:
    """The conditions that have yet to be asked before a block may start for the first time."""
    if block.tries:
        return []
    return [hook for hook in block.block.conditions if condition_name(hook) not in block.hooks]


def told(block: BlockState, why: StopWhy | None) -> Told | None:
    """What the callbacks of a block are told; None while, or if, there is nothing to tell.

    Nothing is told of a block that never began: it was skipped, or something upstream was in its way.
    """
    if not block.tries or block.children is not None:
        return None
    if block.state is BlockStatus.COMPLETED:
        return "success"
    if block.state is BlockStatus.FAILED:
        return "failure"
    return "cancelled" if block.state is BlockStatus.CANCELLED and why is not None else None


def due_callbacks(block: BlockState, why: StopWhy | None) -> list[tuple[str, Hook]]:
    """The callbacks that have yet to run, each with the name of its attempt."""
    if not block.block.callbacks or (status := told(block, why)) is None:
        return []
    named = [(f"callback:{hook.uuid}:{status}", hook) for hook in block.block.callbacks]
    return [(name, hook) for name, hook in named if name not in block.hooks]


def with_hooks(state: RunState) -> Iterator[BlockState]:
    """The block runs that have conditions or callbacks."""
    if not state.pipeline.has_hooks:
        return
    for uuid, block in state.blocks.items():
        if block.block.callbacks or block.block.conditions:
            yield from state.families[uuid].children if uuid in state.families else (block,)


def hold_open(state: RunState, why: StopWhy | None) -> bool:
    """Whether a run may not close yet: a hook runs, or a callback has something to be told."""
    return any(block.hook_open or due_callbacks(block, why) for block in with_hooks(state))


def start(block: BlockState, name: str) -> Start:
    """Count a new attempt of a hook."""
    block.attempt += 1
    block.hook_open = True
    return Start(block_run_id=block.id, attempt=block.attempt, hook=name)


def finish(block: BlockState, name: str, result: BlockResult) -> Finish:
    """The end of a hook's attempt. One that was lost is due again, but not for ever."""
    block.hook_open = False
    block.hooks_lost[name] += result.outcome is Outcome.LOST
    if result.outcome is not Outcome.LOST or block.hooks_lost[name] >= MAX_LOST:
        block.hooks[name] = result.outcome
    return steps.hook_row(block, result)


def refusal(hook: Hook, result: BlockResult) -> Never | None:
    """What a condition's end means for the block: nothing when it holds. An exception is as good as false (Mage)."""
    if result.outcome is Outcome.COMPLETED:
        if not result.value_false:
            return None
        return Never(BlockStatus.CONDITION_FAILED, f"condition '{hook.uuid}' is not met")
    why = f": {result.error.type}: {result.error.message}" if result.error else ""
    return Never(BlockStatus.CONDITION_FAILED, f"condition '{hook.uuid}' {result.outcome}{why}")


class Run(Protocol):
    """What the hooks need of the run they belong to: `Runner`."""

    tools: Tools
    state: RunState
    writing: Writing
    group: asyncio.TaskGroup
    busy: dict[str, Held]
    why: StopWhy | None
    leaving: bool

    async def submit(self, unit: Unit, *events: Event) -> Verdict:
        """Write a unit."""
        ...

    def call(self, block: BlockState) -> BlockCall:
        """What an attempt of a block is told."""
        ...

    def forbids(self, uuid: str) -> bool:
        """Whether a block may not start any more."""
        ...

    def end_or_park(self) -> None:
        """Close or park the run if nothing of it goes on."""
        ...


class HookRun:
    """Runs the hooks of one run's blocks: each start is on disk before its code runs, each end after it."""

    def __init__(
        self,
        run: Run,
        places: Places,
        answering: Answering,
    ) -> None:
        self._run, self._places, self._answering = run, places, answering
        #: blocks whose callbacks run now, with their place
        self.telling: dict[str, Held | None] = {}

    async def refusal(self, uuid: str, held: Held) -> tuple[Never, Finish] | None:
        """What the conditions of a block that has not started make of it; None when they let it start.

        The end of the condition that is not met goes to disk with the end of its block: after a crash between the
        two, the rows would say of the condition only that it has ended. A block that runs inline holds no worker: its
        conditions get one, as its callbacks do.
        """
        if not held.inline or not due_conditions(self._run.state.block(uuid)):
            return await self._refusal(uuid, held)
        worker = await self._places.take(uuid, inline=False, permitted=True)
        if worker is None:
            return None
        try:
            return await self._refusal(uuid, worker)
        finally:
            worker.release()

    async def _refusal(self, uuid: str, held: Held) -> tuple[Never, Finish] | None:
        block = self._run.state.block(uuid)
        while (due := due_conditions(block)) and not self._run.forbids(uuid):
            await held.reclaim()  # one that waited for a run and was lost has lent it
            name = condition_name(due[0])
            self._run.busy[uuid] = held  # a stop of the run kills it
            result, ended = await self._attempt(block, name, due[0], held)
            del self._run.busy[uuid]
            if ended is None:
                return None
            refused = refusal(due[0], result)
            if refused is not None and name in block.hooks and not self._run.forbids(uuid):
                return refused, ended
            await self._end(ended)
        return None

    def tell(self, ended: Iterable[str] | None = None) -> None:
        """Run the callbacks that are due (`ended`: of these blocks); each block's in turn, on a place of their own."""
        run = self._run
        if run.leaving or not run.state.pipeline.has_hooks:
            return
        for block in with_hooks(run.state) if ended is None else map(run.state.block, ended):
            uuid = block.uuid
            if uuid not in self.telling and due_callbacks(block, run.why):
                self.telling[uuid] = None
                run.group.create_task(self._callbacks(uuid), name=f"run {run.state.run.id} {uuid} callbacks")

    def kill(self, reason: str) -> None:
        """End the callbacks that run now."""
        for held in self.telling.values():
            if held is not None:
                self._run.group.create_task(held.slot.kill(Outcome.CANCELLED, reason))

    async def _callbacks(self, uuid: str) -> None:
        run, block = self._run, self._run.state.block(uuid)
        try:
            while not run.leaving and (due := due_callbacks(block, run.why)):
                held = await self._places.take(uuid, inline=False, even_so=True)
                assert held is not None
                self.telling[uuid] = held
                try:
                    _, ended = await self._attempt(block, *due[0], held)
                    if ended is not None:
                        await self._end(ended)
                finally:
                    self.telling[uuid] = None
                    held.release()
        finally:
            del self.telling[uuid]
        run.end_or_park()

    async def _attempt(
        self, block: BlockState, name: str, hook: Hook, held: Held
    ) -> tuple[BlockResult, Finish | None]:
        """Run a hook to its end, whatever that is.

        The end is for the caller to write; there is none when the run is being left.
        """
        run, row, why = self._run, self._run.state.run, self._run.why
        await run.submit(Unit(run_id=row.id, epoch=row.epoch, starts=(start(block, name),)))
        if name == condition_name(hook):
            stopped, limit_s = run.forbids(block.uuid), block.block.timeout_s
        else:
            stopped, limit_s = run.leaving or run.why != why, None if why is None else AFTER_STOP_S
        on_line = partial(run.writing.line, block)
        if stopped:  # while its start was on the way to disk
            result = BlockResult(Outcome.CANCELLED)
        else:
            result = await self._ran(block, name, hook, held, limit_s)
        if run.leaving:  # whoever takes the run over declares this attempt lost
            return result, None
        if result.error is not None:
            on_line(LogLine("system", "error", f"{name} {result.outcome}:"))
            for line in lines_of(result.error.traceback or f"{result.error.type}: {result.error.message}"):
                on_line(line)
        return result, finish(block, name, result)

    async def _ran(
        self, block: BlockState, name: str, hook: Hook, held: Held, limit_s: float | None
    ) -> BlockResult:
        """What a hook's code came to; seconds in `limit_s`, None is no limit."""
        run, uuid = self._run, block.uuid
        on_line, on_ask = partial(run.writing.line, block), self._answering.begin(uuid, held, name)
        call = self._call(block, name, hook)
        result = await run_within(
            run.tools, run.group, held, call, limit_s, what=name, on_line=on_line, on_ask=on_ask
        )
        await self._answering.stop(uuid, result.outcome)
        return run.state.redactor.result(result)

    async def _end(self, ended: Finish) -> None:
        row = self._run.state.run
        await self._run.submit(Unit(run_id=row.id, epoch=row.epoch, finishes=(ended,)))

    def _call(self, block: BlockState, name: str, hook: Hook) -> BlockCall:
        state = self._run.state
        kind, _, rest = name.partition(":")
        call = self._run.call(block)
        described = HookCall(
            kind="condition" if kind == "condition" else "callback",
            uuid=hook.uuid,
            file=hook.file,
            status=rest.rpartition(":")[2] if kind == "callback" else None,  # type: ignore[arg-type]
            error=block.error,
            run=shown(state.run, state.statuses.items()),
        )
        inputs = call.inputs if kind == "condition" else [(block.block.uuid, block.outputs)]
        return replace(call, hook=described, inputs=inputs)
