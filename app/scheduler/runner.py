"""One run, driven: its blocks are tasks, each with its trigger's semaphore and an `asyncio.timeout`.

The task that ran a block goes on itself with the first block this made ready, on the same worker, and tells
the journal both in one unit. Nothing runs before its start is on disk. A run in which every block only waits
for a time is parked: the task ends, and a timer brings it back from its rows.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Literal

from app import clock
from app.errors import LeaseLost
from app.events import BlockStarted, Event
from app.executors.base import BlockCall, BlockResult, LogLine
from app.models.rules import Never
from app.models.states import BlockStatus, Outcome
from app.scheduler import blockhooks, families, progress, steps, variables
from app.scheduler.answering import Answering
from app.scheduler.blockhooks import HookRun
from app.scheduler.calls import call_of, run_within
from app.scheduler.fanout import Fanout
from app.scheduler.moments import watch
from app.scheduler.places import Places
from app.scheduler.runstate import BlockState, RunState
from app.scheduler.steps import StopWhy
from app.scheduler.tools import Ending, Held, Tools
from app.scheduler.writing import Writing
from app.store.units import Close, Finish, Settle, Unit, Verdict, Wait

log = logging.getLogger(__name__)
_SLA_LINE = "the run is not over, and its SLA passed at {at:%Y-%m-%d %H:%M:%S} UTC"


class Runner:
    """Drives one run from where its rows stand.

    `first`: what is held already for blocks that started with the run itself.
    """

    def __init__(
        self, tools: Tools, state: RunState, permits: list[asyncio.Semaphore], first: dict[str, Held]
    ) -> None:
        self.tools, self.state, self.permits = tools, state, permits
        self._first = first
        self.leaving = self._begun = False
        self._id, self._epoch = state.run.id, state.run.epoch
        self.group = asyncio.TaskGroup()
        self.writing = Writing(tools, state, self.group, self._closed)
        self.busy: dict[str, Held] = {}
        self._places = Places(tools, permits, self.forbids)
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._answering = Answering(state, tools.hooks, self.group, lambda: self.leaving)
        self._spawned: set[str] = set()
        self._hooks = HookRun(self, self._places, self._answering)
        self._fanout = Fanout(self)
        self._chains = 0
        self._over = asyncio.Event()
        self._ending: Ending | None = None
        self.why: StopWhy | None = None
        self._sla_told = state.run.sla_passed_at is not None

    async def drive(self) -> Ending:
        """Run until there is nothing left to do here. Raises only what is a fault of the engine."""
        state = self.state
        try:
            state.kwargs, state.datetimes = variables.for_blocks(
                state.pipeline, state.run, env=self.tools.env
            )
            async with self.group:
                if moments := steps.moments(self.state.run):
                    self.group.create_task(watch(moments, self._over, self._passed))
                self._begin()
        except* LeaseLost:
            log.warning("run %d: lease lost at epoch %d", self._id, self._epoch)
            self._ending = Ending("lost")
        finally:
            self._over.set()
            self.writing.close()
            for timer in self._timers.values():
                timer.cancel()
            for held in self._first.values():
                held.release()
        assert self._ending is not None
        return self._ending

    def stop(self, why: StopWhy) -> None:
        """Stop the run: what runs is killed, what waits is cancelled, then it closes. The first reason stands."""
        if self.why is not None or self._over.is_set():
            if self._ending is not None and self._ending.kind == "parked":
                self._ending = Ending("parked", clock.now())  # it comes back at once, and ends then
            return
        self.why = why
        if self._begun:  # else the beginning sees it
            self.halt()
            self._hooks.kill(steps.KILL_REASON[why])  # what is told of the stop itself comes after
            self._hooks.tell()
            self.end_or_park()

    def leave(self) -> None:
        """Let go of the run as it stands, for another owner: nothing more is written or started."""
        self.leaving = True
        self._ending = self._ending or Ending("handed_over")
        self._places.give_up()
        self.writing.leave()
        self._over.set()

    def _begin(self) -> None:
        """Start a chain for every block that can go on now; a run that was asked to stop only ends."""
        self._begun = True
        self._fanout.restore()
        for uuid, held in self._first.items():  # on disk already: they end as attempts, whatever comes
            attempt = self.state.block(uuid).attempt
            self.writing.publish(BlockStarted(run_id=self._id, block_uuid=uuid, attempt=attempt))
            self.spawn(uuid, held)
        first = self._first.keys()
        self.why = self.why or steps.asked_to_stop(self.state.run, clock.now())
        if self.why is None:
            for block in self.state.everything():
                waits = block.state is BlockStatus.QUEUED or block.is_waiting_sensor
                if waits and block.uuid not in first and not self.forbids(block.uuid):
                    self._wake_at(block.uuid, block.wake_at)
            self._begin_ready()
        self._first = {}
        self._hooks.tell()
        self.end_or_park()

    def _begin_ready(self) -> None:
        """Start a chain for every block that has not started and may."""
        failing = steps.is_failing(self.state)
        ready = progress.ready(self.state.pipeline, self.state.statuses, stopping=failing)
        for uuid in [*self._unmapped(ready), *self._fanout.ready(self.state.children.values())]:
            self.spawn(uuid)
        self._fanout.plan()

    def _unmapped(self, uuids: list[str]) -> list[str]:
        """Those of the blocks that run themselves, and have not been begun: a rule may be met by more than one end."""
        pipeline = self.state.pipeline
        return [u for u in uuids if u not in self._spawned and not families.dimensions(pipeline, u)]

    def spawn(self, uuid: str, held: Held | None = None) -> None:
        """Begin a chain with a block."""
        self._timers.pop(uuid, None)
        self._spawned.add(uuid)
        self._chains += 1
        self.group.create_task(self._chain(uuid, held), name=f"run {self._id} {uuid}")

    def _wake_at(self, uuid: str, when: datetime | None) -> None:
        """Go on with a block at a time, as long as the run is here; parked runs are woken from outside."""
        left = 0.0 if when is None else (when - clock.now()) / timedelta(seconds=1)
        if left <= 0:
            self._wake(uuid)
        else:
            self._timers[uuid] = asyncio.get_running_loop().call_later(left, self._wake, uuid)

    def _wake(self, uuid: str) -> None:
        if not self._over.is_set() and not self.forbids(uuid):
            for name in self._fanout.woken(uuid):
                self.spawn(name)

    def forbids(self, uuid: str) -> bool:
        """Whether a block may not start any more, nor go on."""
        return self.leaving or steps.forbids(self.state, self.why, uuid)

    async def _chain(self, uuid: str, held: Held | None) -> None:
        """Run a block, then the first block that it makes ready, and so on."""
        started = held is not None
        following: str | None = uuid
        try:
            while following is not None:
                current = following
                held = held or await self._places.take(current, inline=self._is_inline(current))
                if held is None:
                    break
                refused = None if started else await self._hooks.refusal(current, held)
                if refused is not None:
                    following, held = await self._refuse(current, *refused, held)
                elif started or (not self.forbids(current) and await self._start(current)):
                    self.busy[current] = held
                    result = await self._attempt(current, held)
                    await self._answering.stop(current, result.outcome)
                    del self.busy[current]
                    following, held = await self._finish(current, result, held)
                else:
                    break
                started = True
        finally:
            if held is not None:
                held.release()
            self._chains -= 1
        self.end_or_park()

    async def _refuse(
        self, uuid: str, refused: Never, ended: Finish, held: Held
    ) -> tuple[str | None, Held | None]:
        """Settle a block whose condition is not met, and go on with what that made ready."""
        block = self.state.block(uuid)
        block.state = refused.status
        settle = Settle(block_run_id=block.id, status=refused.status, reason=refused.reason)
        self.writing.line(block, LogLine("system", "info", refused.reason))
        unit = Unit(run_id=self._id, epoch=self._epoch, finishes=(ended,), settles=(settle,))
        return await self._go_on(uuid, held, unit)

    async def _start(self, uuid: str) -> bool:
        """Put the start of an attempt on disk; False when it was refused."""
        block = self.state.block(uuid)
        if block.is_waiting_sensor:
            return True  # one attempt is open over all its pokes
        start = steps.start(block, clock.now())
        verdict = await self.submit(Unit(run_id=self._id, epoch=self._epoch, starts=(start,)))
        return self._started(block, verdict)

    def _started(self, block: BlockState, verdict: Verdict) -> bool:
        if verdict.stop is not None:
            steps.take_back(block)
            self.stop(verdict.stop)
            return False
        self.writing.publish(BlockStarted(run_id=self._id, block_uuid=block.uuid, attempt=block.attempt))
        return True

    async def _attempt(self, uuid: str, held: Held) -> BlockResult:
        """Run one attempt to its end, whatever that is."""
        if self.forbids(uuid):  # it was stopped while its start was on the way to disk
            return BlockResult(Outcome.CANCELLED)
        block = self.state.block(uuid)
        limit = steps.time_limit(block, clock.now())
        block.wake_at = None
        return await run_within(
            self.tools,
            self.group,
            held,
            self.call(block),
            limit,
            on_line=partial(self.writing.line, block),
            on_ask=self._answering.begin(uuid, held),
        )

    @property
    def only_waits(self) -> bool:
        """Whether nothing of the run needs a place: all its blocks wait for runs that they started."""
        return bool(self.busy) and self._chains == len(self.busy) and all(h.lent for h in self.busy.values())

    def call(self, block: BlockState) -> BlockCall:
        """What the present attempt of a block is told."""
        return call_of(self.tools, self.state, block)

    async def _finish(self, uuid: str, result: BlockResult, held: Held) -> tuple[str | None, Held | None]:
        """Write the end of an attempt and all that follows from it. Returns the block to go on with, and its slot."""
        if self.leaving:
            return None, held  # whoever takes the run over declares this attempt lost
        block = self.state.block(uuid)
        result = self.state.redactor.result(result)
        judgement = steps.judge(block, result, self.why, clock.now())
        wake = judgement.wake_at
        unit = Unit(
            run_id=self._id,
            epoch=self._epoch,
            finishes=() if judgement.waiting else (steps.finish_row(block, judgement, result),),
            waits=(Wait(block_run_id=block.id, wake_at=wake),) if wake and judgement.waiting else (),
        )
        self.writing.explain(block, result)
        ended = steps.ended_event(self._id, block, judgement, result)
        following, kept = await self._go_on(uuid, held, unit, ended)
        if wake is not None and not self.forbids(uuid):
            self._wake_at(uuid, wake)
        return following, kept

    async def _go_on(
        self, uuid: str, held: Held, unit: Unit, *events: Event
    ) -> tuple[str | None, Held | None]:
        """Write how a block moved and all that follows from it. Returns the block to go on with, and its slot."""
        finishes, settles = self._fanout.end_with(uuid)
        ended = [uuid, *steps.names_of(self.state, [*settles, *finishes])]
        following = self._choose(uuid, ended, held) if self.why is None else None
        starts = (steps.start(self.state.block(following), clock.now()),) if following else ()
        if following is None:
            held.release()  # before the commit: the next block need not wait for our disk
        unit = replace(
            unit,
            finishes=(*unit.finishes, *finishes),
            settles=(*unit.settles, *settles),
            waits=unit.waits if self.state.block(uuid).is_waiting_sensor else (),  # it may have been dropped
            starts=starts,
            close=self._closing(),
        )
        try:
            verdict = await self.submit(unit, *events, *steps.settled_events(self.state, unit.settles))
        except BaseException:
            if following is not None:
                held.release()
            raise
        self._hooks.tell(ended)
        self._fanout.plan()
        if following is None:
            return None, None
        return (following if self._started(self.state.block(following), verdict) else None), held

    def follow(self, ended: Sequence[str]) -> None:
        """Begin what these ends made ready, on places of its own."""
        failing = steps.is_failing(self.state)
        if self.why is not None or self.leaving:
            return
        ready = progress.made_ready(self.state.pipeline, self.state.statuses, ended, stopping=failing)
        for uuid in [*self._unmapped(ready), *self._fanout.after(ended)]:
            self.spawn(uuid)
        self._fanout.plan()

    def _closing(self) -> Close | None:
        close = steps.closing(self.state, self.why)
        return None if close is None or blockhooks.hold_open(self.state, self.why) else close

    def _choose(self, uuid: str, ended: Sequence[str], held: Held) -> str | None:
        """The ready block that keeps this slot; the others get chains of their own."""
        state = self.state
        if state.block(uuid).state is BlockStatus.QUEUED and state.block(uuid).wake_at is None:
            self.spawn(uuid)  # lost with its worker: again at once, on another
            return None
        if (child := state.block(uuid)).item_index is not None and child.wake_at is not None:
            self._fanout.landed(child)
        failing = steps.is_failing(state)
        found = progress.made_ready(state.pipeline, state.statuses, ended, stopping=failing)
        ready = [*self._unmapped(found), *self._fanout.after(ended)]
        following = next((r for r in ready if self._may_follow(r, held)), None)
        for other in ready:
            if other != following:
                self.spawn(other)
        return following

    def _may_follow(self, uuid: str, held: Held) -> bool:
        """Whether a block's start can be written with the end of the one before it, whose place is still its own."""
        block = self.state.block(uuid)
        starts = not block.is_waiting_sensor and not block.block.conditions
        return starts and not held.lent and self._is_inline(uuid) == held.inline

    def halt(self) -> None:
        """Wake what waits for a slot, kill what runs, as far as it may not go on."""
        reason = "another block failed" if self.why is None else steps.KILL_REASON[self.why]
        self._places.give_up()
        for uuid, held in self.busy.items():
            if self.forbids(uuid):
                self.group.create_task(held.slot.kill(Outcome.CANCELLED, reason))

    def _is_inline(self, uuid: str) -> bool:
        return self._places.is_inline(self.state.block(uuid).block)

    def end_or_park(self) -> None:
        """With no chain left: close the run, or park it until its next block wakes."""
        if self._chains or self._fanout.planning or self._over.is_set():
            return
        self._hooks.tell()
        if self._hooks.telling:
            return
        blocks = self.state.everything()
        if wakes := [b.wake_at for b in blocks if b.wake_at is not None and not self.forbids(b.uuid)]:
            self._ending = Ending("parked", min(wakes))
            self._over.set()
            self.writing.flush()
            return
        self._chains += 1  # nobody else may end it meanwhile
        self.group.create_task(self._close())

    async def _close(self) -> None:
        """Close a run that no attempt's end closes: stopped before or between attempts, or with nothing to run."""
        finishes, settles = self._fanout.end_with()
        close, moved = self._closing(), bool(settles or finishes)
        if close is None and not moved and not blockhooks.hold_open(self.state, self.why):
            raise RuntimeError(f"run {self._id} cannot go on: {self.state.statuses}")
        unit = Unit(
            run_id=self._id, epoch=self._epoch, finishes=tuple(finishes), settles=tuple(settles), close=close
        )
        await self.submit(unit, *steps.settled_events(self.state, settles))
        if close is None and self.why is None and not self.leaving:
            self._begin_ready()  # a rule may be met by what has ended just now
        self._chains -= 1
        self.end_or_park()

    async def _passed(self, what: Literal["sla", "deadline"], when: datetime) -> None:
        """Its SLA has passed, or its deadline: tell it, and stop the run where that is asked for."""
        if what == "sla":
            self._sla_told = True
            self.writing.note(LogLine("system", "warning", _SLA_LINE.format(at=when)))
            await self.tools.hooks.sla(self._id)
        if what == "deadline" or steps.stops_at_sla(self.state.run):
            self.stop(what)

    async def submit(self, unit: Unit, *events: Event) -> Verdict:
        """Write a unit of this run, and tell whoever listens."""
        verdict = await self.writing.submit(unit, *events)
        at = self.state.run.sla_at
        if unit.close is not None and not self._sla_told and at is not None and at < clock.now():
            await self.tools.hooks.sla(self._id)  # it ended in the instant after: its end has said so
        return verdict

    def _closed(self) -> None:
        self._ending = Ending("closed")
        self._over.set()
