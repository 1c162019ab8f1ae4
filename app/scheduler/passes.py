"""The passes that the timers ask for: thin loops over the store and the pure functions.

Each looks at what is there now and does what is due; a pass that comes late or twice changes nothing.
"""

import asyncio
import logging
from datetime import datetime, timedelta

from app import clock, failpoints
from app.pipelines.catalogue import Catalogue
from app.pipelines.faultlog import FaultLog
from app.scheduler import applying
from app.scheduler.fleet import Fleet
from app.scheduler.intake import Intake
from app.scheduler.pruner import Pruner
from app.scheduler.recovery import Recovery
from app.scheduler.ticker import Ticker
from app.settings import Settings
from app.store import looks, nodes, runs
from app.store.db import Clash, Database
from app.store.ids import Ids
from app.store.nodes import NodeRow

log = logging.getLogger(__name__)

#: Days that a node which has ended is remembered.
KEPT_DAYS = 7
#: Looks at the triggers in one pass, when others change them between our look and our lock.
LOOKS = 5


class Passes:
    """Everything a node does because time has gone by."""

    def __init__(
        self,
        *,
        db: Database,
        catalogue: Catalogue,
        settings: Settings,
        me: NodeRow,
        fleet: Fleet,
        intake: Intake,
        recovery: Recovery,
        run_ids: Ids,
        block_ids: Ids,
        schedule_ids: Ids,
    ) -> None:
        self._db, self._catalogue, self._me = db, catalogue, me
        self._fleet, self._intake, self._recovery = fleet, intake, recovery
        self._schedule_ids = schedule_ids
        self.pruner = Pruner(db, catalogue, settings, me.id)
        self._unsynced = False
        self._faults = FaultLog()
        self._ticker = Ticker(
            db=db, catalogue=catalogue, node_id=me.id, intake=intake, run_ids=run_ids, block_ids=block_ids
        )

    @property
    def ticked_at(self) -> datetime | None:
        """When the tick last ended, for `/health`."""
        return self._ticker.ticked_at

    async def tick(self) -> datetime | None:
        """Decide every due slot; returns when the next one is due."""
        if failpoints.armed is not None:
            await failpoints.armed.reach("loop")
        return await self._ticker.tick()

    async def sync(self, *, force: bool = False, looks: int = LOOKS) -> bool:
        """Read what changed in the project folder; bring triggers and limits to it, within so many looks."""
        changed = await asyncio.to_thread(self._catalogue.refresh)
        # Until the database has it: the catalogue tells of a change once, and the database may be away.
        self._unsynced = self._unsynced or changed or force
        if not self._unsynced:
            return False
        self._faults.look(self._catalogue)
        try:
            count = await applying.bring(self._db, self._catalogue, self._schedule_ids, self._me.id)
        except (Clash, KeyError) as error:  # another replica was between our look and our lock
            if looks <= 1:
                raise  # it is no replica each time; the next pass tries again
            log.info("triggers: looked at anew (%s)", type(error).__name__)
            return await self.sync(force=True, looks=looks - 1)
        self._unsynced = False
        if count:
            log.info("triggers new or changed in their files: %d", count)
        self._intake.has_news()
        return True

    async def poll(self) -> None:
        """What a lost wake-up would have said: cancels asked for elsewhere, runs of the dead, runs that wait, SLAs."""
        news = await self._db.read(looks.news, self._me.id, now=clock.now())
        for run_id in news.cancelled:
            self._fleet.cancel(run_id)
        await self._recovery.take_over(news.estate)
        if news.waits:
            self._intake.want_admission()
        if news.sla:
            await self._fleet.sla.sweep()

    async def stop_cancelled(self) -> None:
        """Stop every own run whose cancel is on record."""
        for run_id in await self._db.read(runs.cancel_asked, self._me.id):
            self._fleet.cancel(run_id)

    async def recover(self) -> None:
        """Fence the dead, take over what they owned, find own runs that nobody drives."""
        await self._recovery.recover()

    async def forget(self) -> None:
        """Forget what is past its time: runs, logs, slots, files; then the nodes that nothing names any more."""
        await self.pruner.run()
        await self._db.write(nodes.forget, before=clock.now() - timedelta(days=KEPT_DAYS))
