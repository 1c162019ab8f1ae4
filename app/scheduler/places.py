"""Where the blocks of one run get what they need to run: a slot, and the permits that limits ask for."""

import asyncio
from collections.abc import Callable, Sequence

from app.executors.base import Slot
from app.models.pipeline import Block, Isolation
from app.scheduler.tools import Held, Tools


class Places:
    """`forbids(uuid)` tells whether a block may not start any more: whoever waits for it then gets nothing."""

    def __init__(
        self, tools: Tools, permits: Sequence[asyncio.Semaphore], forbids: Callable[[str], bool]
    ) -> None:
        self._tools, self._permits, self._forbids = tools, permits, forbids
        self._waiting: dict[asyncio.Task[None], str] = {}

    def is_inline(self, block: Block) -> bool:
        """Whether a block runs on the service's own loop."""
        return block.isolation is Isolation.INLINE and self._tools.inline is not None

    async def take(
        self, uuid: str, *, inline: bool, even_so: bool = False, permitted: bool = False
    ) -> Held | None:
        """A slot and the permits for a block; None when it was forbidden meanwhile. `even_so`: that does not count.

        `permitted`: whoever asks holds the permits already.
        """
        task = asyncio.current_task()
        assert task is not None
        executor = self._tools.inline if inline and self._tools.inline else self._tools.workers
        taken: list[asyncio.Semaphore] = []
        slot: Slot | None = None
        if not even_so:
            self._waiting[task] = uuid
        try:
            for permit in () if permitted else self._permits:
                await permit.acquire()
                taken.append(permit)
            slot = await executor.acquire(self._tools.python())
        except asyncio.CancelledError:
            if even_so or not self._forbids(uuid) or task.uncancel():
                raise
        finally:
            self._waiting.pop(task, None)
            if slot is None:
                for permit in taken:
                    permit.release()
        if slot is None:
            return None
        held = Held(slot, inline, taken)
        if not even_so and self._forbids(uuid):
            held.release()
            return None
        return held

    def give_up(self) -> None:
        """Wake whoever waits for what is forbidden now; once each, since a second cancel would end the chain itself."""
        for task in [task for task, uuid in self._waiting.items() if self._forbids(uuid)]:
            del self._waiting[task]
            task.cancel()
