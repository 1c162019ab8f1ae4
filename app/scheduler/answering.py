"""Questions that the blocks of one run put to the service while they run, and who waits for the answers."""

import asyncio
import logging
from collections.abc import Callable

from app.errors import StoreUnavailable
from app.executors.base import Ask, OnAsk
from app.models.states import Outcome
from app.scheduler.runstate import RunState
from app.scheduler.tools import Held, Hooks

log = logging.getLogger(__name__)

#: between two tries of a cancel that the database did not answer
AGAIN_S = 0.5


class Answering:
    """Answers in tasks that end with the attempt that asked. A block that waits for a run lends its place on."""

    def __init__(
        self, state: RunState, hooks: Hooks, group: asyncio.TaskGroup, is_leaving: Callable[[], bool]
    ) -> None:
        self._state, self._hooks, self._group, self._is_leaving = state, hooks, group, is_leaving
        self._asked: dict[str, int] = {}
        self._tasks: dict[str, set[asyncio.Task[None]]] = {}
        self._lost: set[str] = set()

    def begin(self, uuid: str, held: Held, hook: str = "") -> OnAsk:
        """Where the attempt that block `uuid`, or a hook of it, begins now may put its questions."""
        self._asked[uuid] = 0
        self._lost.discard(uuid)
        return lambda ask: self._take(uuid, held, ask, hook)

    def _take(self, uuid: str, held: Held, ask: Ask, hook: str) -> None:
        self._asked[uuid] += 1
        # The same over restarts of the service, which cost no turn: the child is found again.
        key = f"{uuid}:{hook or self._state.block(uuid).turn}:{self._asked[uuid]}"
        task = self._group.create_task(self._answer(uuid, held, key, ask))
        tasks = self._tasks.setdefault(uuid, set())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def _answer(self, uuid: str, held: Held, key: str, ask: Ask) -> None:
        waits = ask.name == "wait_for_run"
        if waits:
            held.lend()
            self._hooks.freed()
        try:
            reply = await self._hooks.answer(self._state.run, key, ask.name, ask.payload)
        except asyncio.CancelledError:
            # The block that waited was stopped: so is what it waited for. One that was lost finds it again.
            if waits and uuid not in self._lost:
                await self._cancel(int(ask.payload["run_id"]))
            raise  # its place stays lent: whoever holds it has no more use for it
        if waits:
            await held.reclaim()
        if ask.name == "get_secret_value" and "value" in reply:
            self._state.redactor.learn(reply["value"])  # before the block has it, and can print it
        ask.answer(reply)

    async def _cancel(self, run_id: int) -> None:
        """Stop a child, as soon as the database can be told; a run that is let go of leaves that to its next owner."""
        while not self._is_leaving():
            try:
                await self._hooks.cancel(run_id)
                return
            except StoreUnavailable as error:
                log.warning("cancel of run %d: %s; trying again", run_id, error)
                await asyncio.sleep(AGAIN_S)

    async def stop(self, uuid: str, outcome: Outcome | None = None) -> None:
        """The attempt is over: what it still asked needs no answer. The place that it lent stays another's."""
        if outcome is Outcome.LOST:
            self._lost.add(uuid)
        if tasks := self._tasks.pop(uuid, None):
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
