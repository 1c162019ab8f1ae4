"""Questions that the blocks of one run put to the service while they run, and who waits for the answers."""

import asyncio
from collections.abc import Callable

from app.executors.base import Ask, OnAsk
from app.scheduler.runstate import RunState
from app.scheduler.tools import Held, Hooks


class Answering:
    """Answers in tasks that end with the attempt that asked. A block that waits for a run lends its place on."""

    def __init__(
        self, state: RunState, hooks: Hooks, group: asyncio.TaskGroup, is_leaving: Callable[[], bool]
    ) -> None:
        self._state, self._hooks, self._group, self._is_leaving = state, hooks, group, is_leaving
        self._asked: dict[str, int] = {}
        self._tasks: dict[str, set[asyncio.Task[None]]] = {}

    def begin(self, uuid: str, held: Held) -> OnAsk:
        """Where the attempt that block `uuid` begins now may put its questions."""
        self._asked[uuid] = 0
        return lambda ask: self._take(uuid, held, ask)

    def _take(self, uuid: str, held: Held, ask: Ask) -> None:
        self._asked[uuid] += 1
        # The same over restarts of the service, which cost no charged attempt: the child is found again.
        key = f"{uuid}:{self._state.blocks[uuid].charged}:{self._asked[uuid]}"
        task = self._group.create_task(self._answer(held, key, ask))
        tasks = self._tasks.setdefault(uuid, set())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def _answer(self, held: Held, key: str, ask: Ask) -> None:
        waits = ask.name == "wait_for_run"
        if waits:
            held.lend()
            self._hooks.freed()
        try:
            reply = await self._hooks.answer(self._state.run, key, ask.name, ask.payload)
        except asyncio.CancelledError:
            if (
                waits and not self._is_leaving()
            ):  # the block that waited was stopped: so is what it waited for
                await self._hooks.cancel(int(ask.payload["run_id"]))
            raise
        finally:
            if waits:
                await held.reclaim()
        ask.answer(reply)

    async def stop(self, uuid: str) -> None:
        """The attempt is over: what it still asked needs no answer, and its place is its own again."""
        if tasks := self._tasks.pop(uuid, None):
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
