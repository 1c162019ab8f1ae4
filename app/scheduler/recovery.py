"""What the dead have left: who is dead, whose their runs are now, and own runs that nobody drives."""

import logging
from collections.abc import Callable, Mapping
from datetime import datetime

from app import clock
from app.models.pipeline import Pipeline, from_definition
from app.models.states import BlockStatus
from app.scheduler import progress
from app.scheduler.fleet import Fleet
from app.scheduler.node import provably_dead
from app.store import nodes, ownership, runs
from app.store.db import Database
from app.store.nodes import NodeRow
from app.store.ownership import Estate, TakenOver

log = logging.getLogger(__name__)

#: Parked runs taken over in one transaction.
BATCH = 500


class Recovery:
    """Fences, takes over and finds strays, for one node. `judges`: see `Tenure.judges`."""

    def __init__(
        self, db: Database, me: NodeRow, fleet: Fleet, judges: Callable[[], datetime | None]
    ) -> None:
        self._db, self._me, self._fleet, self._judges = db, me, fleet, judges
        self._strays: set[int] = set()
        self._left_last_time = False

    async def recover(self) -> None:
        """Fence the dead, take over what they owned, find own runs that nobody drives."""
        now = clock.now()
        only_one = not self._db.shared
        dead = provably_dead(await self._db.read(nodes.alive), self._me, only_one=only_one)
        if dead:
            await self._db.write(nodes.fence, [node.id for node in dead], now=now)
        if (before := self._judges()) is not None:
            for node_id in await self._db.write(nodes.fence_expired, self._me.id, before=before, now=now):
                log.warning("node %s is dead: its lease has ended; its runs are taken over", node_id)
        await self.take_over()
        await self._find_strays()

    async def take_over(self, estate: Estate | None = None) -> None:
        """Take this node's share of what the dead left; what is still there at the next look is anybody's.

        Runs that only wait need no run slot; of the others no more come than there are free slots. `estate` is
        what there is, if that has just been read.
        """
        if estate is None:
            estate = await self._db.read(ownership.estate)
        left, self._left_last_time = self._left_last_time, estate.parked + estate.others > 0
        parked, others = estate.parked, estate.others
        if not left:  # every replica looks once a second: each has had its turn before the rest is taken
            parked, others = estate.share(parked), estate.share(others)
        await self._take_over_parked(parked)
        if others:
            await self._take_over_others(others)

    async def _take_over_others(self, count: int) -> None:
        async with self._fleet.claiming:
            if not (free := min(count, self._fleet.free)):
                return
            for taken in await self._db.write(ownership.takeover, self._me.id, limit=free, now=clock.now()):
                await self._go_on(taken)

    async def _take_over_parked(self, count: int) -> None:
        while count > 0 and not self._fleet.leaving:
            limit = min(count, BATCH)
            found = await self._db.write(
                ownership.take_over_parked, self._me.id, limit=limit, now=clock.now()
            )
            definitions = await self._db.read(runs.definitions, {run.definition_hash for run in found})
            for run in found:
                self._park(run, from_definition(definitions[run.definition_hash]))
            count = count - limit if found else 0

    async def _go_on(self, taken: TakenOver) -> None:
        log.info("run %d taken over at epoch %d", taken.run_id, taken.epoch)
        if taken.lost < progress.MAX_LOST:
            self._fleet.wake(taken.run_id)
            return
        await self._db.write(
            ownership.abort,
            taken.run_id,
            self._me.id,
            taken.epoch,
            reason="recovery limit",
            now=clock.now(),
        )

    def _park(self, run: ownership.Parked, pipeline: Pipeline) -> None:
        """Park a run again, unless a block of it is ready, or a callback: then its node died before starting that."""
        if progress.ready(pipeline, run.statuses) or _may_tell(pipeline, run.statuses):
            self._fleet.wake(run.run_id)
        else:
            self._fleet.parking.park(run.run_id, run.wake_at)

    async def _find_strays(self) -> None:
        """Own runs that are neither driven nor parked, twice in a row: a wake-up was lost."""
        unknown = await self._unknown()
        if unknown & self._strays:  # one may have ended between our look at the rows and that at memory
            for run_id in self._strays & unknown & await self._unknown():
                log.warning("run %d was driven by nobody: going on with it", run_id)
                self._fleet.wake(run_id)
        self._strays = unknown

    async def _unknown(self) -> set[int]:
        owned = await self._db.read(runs.owned, self._me.id)
        return {run_id for run_id, _epoch in owned if not self._fleet.knows(run_id)}


def _may_tell(pipeline: Pipeline, statuses: Mapping[str, BlockStatus]) -> bool:
    """Whether a callback may be due. Whoever goes on with the run sees whether it has run."""
    ended = (BlockStatus.COMPLETED, BlockStatus.FAILED)
    return any(block.callbacks and statuses[block.uuid] in ended for block in pipeline.blocks)
