"""The children of dynamic blocks in a running run: planned in one transaction, started as their own inputs are there.

What is decided purely is in `families.py`; here the state moves and units are made of it. A child is a block run
like any other to the chains of the runner; only who makes it ready and what its end means is told here.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Protocol, TypeVar

from app.errors import StoreUnavailable
from app.events import Event
from app.executors.base import LogLine
from app.models import rules
from app.models.states import BLOCK_TERMINAL, BlockStatus
from app.scheduler import families, steps
from app.scheduler.runstate import BlockState, Family, RunState
from app.scheduler.steps import StopWhy
from app.scheduler.tools import Held, Tools
from app.scheduler.writing import Writing
from app.store.db import dumps, loads
from app.store.units import Child, Finish, Plan, Settle, Unit, Verdict

log = logging.getLogger(__name__)
T = TypeVar("T")

#: between two tries of a question that the database did not answer
AGAIN_S = 0.5
#: Children of one block on their way to a worker at once, when the block says nothing of it: the rest waits as rows.
IN_FLIGHT = 64


class Run(Protocol):
    """What is needed of the run: `Runner`."""

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

    def spawn(self, uuid: str) -> None:
        """Begin a chain with a block."""
        ...

    def halt(self) -> None:
        """Kill what runs and may not go on."""
        ...

    def follow(self, ended: Sequence[str]) -> None:
        """Begin what these ends made ready."""
        ...

    def end_or_park(self) -> None:
        """Close or park the run if nothing of it goes on."""
        ...


class Fanout:
    """Plans, releases and settles the children of one run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        #: whether children are being made
        self.planning = False
        self._queued: dict[str, deque[BlockState]] = {}
        #: children that were found ready, once each; those of them that have a place in flight
        self._found: set[str] = set()
        self._flying: dict[str, set[str]] = {}

    def restore(self) -> None:
        """Make families of the children that were read from rows."""
        state = self._run.state
        found: dict[str, list[BlockState]] = {}
        for child in state.children.values():
            found.setdefault(child.block.uuid, []).append(child)
        for block in state.pipeline.blocks:  # upstreams first: their sizes are asked for
            if state.blocks[block.uuid].children is not None and block.uuid in state.blocks:
                self._make(block.uuid, sorted(found.get(block.uuid, []), key=lambda c: c.item_index or 0))

    def plan(self) -> None:
        """Plan every block whose number of items is known now."""
        run = self._run
        if not run.leaving and not self.planning and self._due():
            self.planning = True
            run.group.create_task(self._plan_all(), name=f"run {run.state.run.id} plan")

    def _due(self) -> list[str]:
        """The blocks that can be planned; in a run that fails, those with a trigger rule of their own."""
        run = self._run
        found = families.plannable(run.state)
        return [uuid for uuid in found if not steps.forbids(run.state, run.why, uuid)]

    async def _plan_all(self) -> None:
        """One after the other, upstreams first: what a child carries over depends on those above it."""
        run = self._run
        try:
            while not run.leaving and (due := self._due()):
                await self._plan(due[0])
        finally:
            self.planning = False
        run.end_or_park()

    async def _plan(self, uuid: str) -> None:
        run, state = self._run, self._run.state
        template = state.blocks[uuid]
        shape = families.sizes(state, uuid) or ()
        count, too_many = families.wanted(shape, template.block)
        ids = await self._asked(partial(run.tools.hooks.block_ids, count))
        source = state.run.retry_of
        if uuid in state.run.options.get("anew", ()):  # asked to run again, all of it
            source = None
        known = None if source is None else partial(run.tools.hooks.left_children, source, uuid)
        left = {} if known is None else await self._asked(known)
        if ids is None or left is None:
            return
        if not run.leaving and template.state is BlockStatus.INITIAL:  # else it fell out meanwhile
            await self._planned(template, shape, ids, too_many, left)

    async def _asked(self, ask: Callable[[], Awaitable[T]]) -> T | None:
        """What the database says, as soon as it answers; None when the run is let go of first."""
        while not self._run.leaving:
            try:
                return await ask()
            except StoreUnavailable as error:
                log.warning("run %d: its blocks cannot be planned now: %s", self._run.state.run.id, error)
                await asyncio.sleep(AGAIN_S)
        return None

    async def _planned(
        self,
        template: BlockState,
        shape: tuple[int, ...],
        ids: Sequence[int],
        too_many: str | None,
        left: Mapping[str, tuple[int, str]],
    ) -> None:
        run, state = self._run, self._run.state
        family = self._family(template, shape, ids)
        children = family.children
        rows = _rows(state, family, self._carry_over(family, left))
        fault = too_many or families.bad_order(family)
        finishes, settles = self._fail(family, fault) if fault else ([], self._at_once(family))
        unit = Unit(
            run_id=state.run.id,
            epoch=state.run.epoch,
            plans=(Plan(block_run_id=template.id, children=len(children)),),
            children=rows,
            finishes=tuple(finishes),
            settles=tuple(settles),
        )
        ready = self.ready(children)
        if fault:
            run.writing.line(template, LogLine("system", "error", fault))
        await run.submit(unit, *steps.settled_events(state, settles))
        for name in ready:
            run.spawn(name)
        run.follow(steps.names_of(state, [*settles, *finishes]))

    def _family(self, template: BlockState, shape: tuple[int, ...], ids: Sequence[int]) -> Family:
        """Children in memory, one an id."""
        state, block = self._run.state, template.block
        names = families.names(state, block.uuid, shape, len(ids))
        children = [
            BlockState(id=i, block=block, state=BlockStatus.INITIAL, name=name, item_index=number)
            for number, (i, name) in enumerate(zip(ids, names, strict=True))
        ]
        template.state, template.children = BlockStatus.QUEUED, len(children)
        state.children |= {child.name: child for child in children}
        return self._make(block.uuid, children)

    def _make(self, uuid: str, children: list[BlockState]) -> Family:
        state = self._run.state
        family = Family(
            template=state.blocks[uuid],
            dims=families.dimensions(state.pipeline, uuid),
            shape=families.sizes(state, uuid) or (0,),
            children=children,
            open=sum(1 for child in children if child.state not in BLOCK_TERMINAL),
            failed=sum(1 for child in children if child.state is BlockStatus.FAILED),
        )
        families.set_order(state, family)
        state.families[uuid] = family
        return family

    def _carry_over(self, family: Family, left: Mapping[str, tuple[int, str]]) -> dict[str, tuple[int, str]]:
        """Complete the children that did so in the run that this one retries, with what they left there."""
        carried = {}
        for child in family.children:
            if child.name in left and families.may_carry(self._run.state, child):
                carried[child.name] = left[child.name]
                child.state, child.carried = BlockStatus.COMPLETED, True
                child.outputs = loads(left[child.name][1])
                family.open -= 1
        return carried

    def _at_once(self, family: Family) -> list[Settle]:
        """What of a family that was just made ends at once: children that cannot start, or all of it without any."""
        if not family.open and (end := self._over(family.template)) is not None:
            return [end, *self.ended([family.template.block.uuid])]
        settles = [
            self._settle(child, verdict.status, verdict.reason)
            for child in family.children
            if isinstance(verdict := families.may_start(self._run.state, child), rules.Never)
        ]
        names = steps.names_of(self._run.state, settles)
        return settles + self.ended(names)

    def _fail(self, family: Family, reason: str) -> tuple[list[Finish], list[Settle]]:
        """Settle a template that cannot be planned as its items ask, whatever was made of it, and what ends with it."""
        settles = [self._settle(c, BlockStatus.CANCELLED, reason) for c in family.children]
        family.template.state = BlockStatus.FAILED
        settles.append(Settle(block_run_id=family.template.id, status=BlockStatus.FAILED, reason=reason))
        finishes, more = self.end_with(family.template.block.uuid)
        return finishes, settles + more

    def _settle(self, child: BlockState, status: BlockStatus, reason: str) -> Settle:
        child.state, child.wake_at = status, None
        self.moved(child)
        return Settle(block_run_id=child.id, status=status, reason=reason)

    def moved(self, child: BlockState) -> None:
        """Count the end of a child; call it once, when its state has become terminal."""
        family = self._run.state.families[child.block.uuid]
        family.open -= 1
        family.failed += child.state is BlockStatus.FAILED
        self.landed(child)

    def landed(self, child: BlockState) -> None:
        """Give up a child's place in flight: it is over, or only waits for a time."""
        self._flying.get(child.block.uuid, set()).discard(child.name)

    def ended(self, uuids: Iterable[str]) -> list[Settle]:
        """What else ends with these: children that can never start now, templates whose last child it was."""
        state = self._run.state
        if not state.families:
            return []
        settles: list[Settle] = []
        look = deque(uuids)
        while look:
            uuid = look.popleft()
            for child in families.below(state, [uuid]):
                if child.state is BlockStatus.INITIAL:
                    verdict = families.may_start(state, child)
                    if isinstance(verdict, rules.Never):
                        settles.append(self._settle(child, verdict.status, verdict.reason))
                        look.append(child.name)
            template = self._over(state.block(uuid))
            if template is not None:
                settles.append(template)
                look.append(state.block(uuid).block.uuid)
        return settles

    def _over(self, block: BlockState) -> Settle | None:
        """The end of a template, if it has come."""
        family = self._run.state.families.get(block.block.uuid)
        if family is None or family.template.state is not BlockStatus.QUEUED:
            return None
        status = families.outcome(self._run.state, family)
        if status is None:
            return None
        family.template.state = status
        outputs: str | None = None
        if status is BlockStatus.COMPLETED:
            family.template.outputs = (families.as_list(family),)
            outputs = dumps(list(family.template.outputs))
        reason = None if status is BlockStatus.COMPLETED else f"{family.failed} of its children failed"
        return Settle(block_run_id=family.template.id, status=status, reason=reason, outputs=outputs)

    def consequences(self, *uuids: str) -> list[Settle]:
        """What else ends with the end of blocks: what is below them, the block that a child belonged to, and so on."""
        run, state, settles = self._run, self._run.state, list[Settle]()
        over = [block for block in map(state.block, uuids) if block.state in BLOCK_TERMINAL]
        for block in over:
            if block.item_index is not None:
                self.moved(block)
        ended = [block.uuid for block in over]
        while True:
            new = steps.fall_out(state, run.why)
            if state.families and (run.why is not None or steps.is_failing(state)):
                new += self.stop("another block failed" if run.why is None else "the run was stopped")
            new += self.ended([*ended, *steps.names_of(state, new)])
            if not new:
                return settles
            settles += new
            ended = []

    def end_with(self, *uuids: str) -> tuple[list[Finish], list[Settle]]:
        """What else ends with the end of blocks; in a run that fails or stops, what waits and what runs, too."""
        run, state = self._run, self._run.state
        settles = self.consequences(*uuids)
        if run.why is None and not steps.is_failing(state):
            return [], settles
        finishes = steps.drop_sensors(state, run.why, run.busy)
        if finishes:
            settles += self.consequences(*steps.names_of(state, finishes))
        run.halt()
        return finishes, settles

    def stop(self, reason: str) -> list[Settle]:
        """Settle the children that have not started and may not any more; templates follow with their last child."""
        run = self._run
        settles = [
            self._settle(child, BlockStatus.CANCELLED, reason)
            for family in run.state.families.values()
            for child in family.children
            if child.state in (BlockStatus.INITIAL, BlockStatus.QUEUED)
            and steps.forbids(run.state, run.why, child.name)
        ]
        ends = [self._over(family.template) for family in run.state.families.values()]
        return settles + [end for end in ends if end is not None]

    def ready(self, candidates: Iterable[BlockState]) -> list[str]:
        """The children that may start and get a place among those in flight; the others wait for their turn."""
        state = self._run.state
        found = []
        for child in candidates:
            if child.state is not BlockStatus.INITIAL or child.name in self._found:
                continue
            if families.may_start(state, child) is True:
                self._queued.setdefault(child.block.uuid, deque()).append(child)
                self._found.add(child.name)
        for uuid in self._queued:
            found += self._next(uuid)
        return found

    def _next(self, uuid: str) -> list[str]:
        """The next children of a block that may fly."""
        block = self._run.state.blocks[uuid].block
        most = min(block.dynamic.max_in_flight or IN_FLIGHT, IN_FLIGHT)
        queue, flying, found = self._queued[uuid], self._flying.setdefault(uuid, set()), []
        while queue and len(flying) < most:
            child = queue.popleft()
            if child.state not in BLOCK_TERMINAL:  # else it fell out meanwhile
                flying.add(child.name)
                found.append(child.name)
        return found

    def woken(self, uuid: str) -> list[str]:
        """What may go on now that the time of a block has come: itself, or whoever's turn it is of its siblings."""
        child = self._run.state.children.get(uuid)
        if child is None:
            return [uuid]
        self._queued.setdefault(child.block.uuid, deque()).append(child)
        return self._next(child.block.uuid)

    def after(self, ended: Sequence[str]) -> list[str]:
        """The children that may start now that these have ended."""
        if not self._run.state.families:
            return []
        return self.ready(families.below(self._run.state, ended))


def _rows(state: RunState, family: Family, carried: Mapping[str, tuple[int, str]]) -> tuple[Child, ...]:
    template = family.template
    position = list(state.blocks).index(template.block.uuid)
    return tuple(
        Child(
            id=child.id,
            parent_id=template.id,
            block_uuid=child.name,
            item_index=child.item_index or 0,
            position=position,
            max_attempts=template.block.retry.retries + 1,
            carried_from=carried.get(child.name, (None, None))[0],
            outputs=carried.get(child.name, (None, None))[1],
        )
        for child in family.children
    )
