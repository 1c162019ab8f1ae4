"""SLAs: what has passed its own is said once, whoever looks first, and told to those who listen."""

import logging
from datetime import datetime

from app import clock
from app.errors import StoreUnavailable
from app.events import NO_RUN, Bus, RunEnded, SlaMissed
from app.models.states import RUN_TERMINAL
from app.store import sla
from app.store.db import Database
from app.store.sla import Passed

log = logging.getLogger(__name__)

BATCH = 500


class Watch:
    """Looks for what has passed its SLA: at each run of this node when it does, at all others every second."""

    def __init__(self, db: Database, bus: Bus) -> None:
        self._db, self._bus = db, bus

    async def sweep(self) -> int:
        """One pass over all that is late and unsaid: runs that wait, are parked or run elsewhere, and missed slots."""
        count = 0
        now = clock.now()
        while await self._db.read(sla.is_due, now=now):
            found = await self._db.write(sla.sweep, now=now, limit=BATCH)
            found += await self._db.write(sla.sweep_slots, now=now, limit=BATCH)
            self._tell(found)
            count += len(found)
            if not found:  # another node has them in its hands
                break
        return count

    async def of_run(self, run_id: int) -> None:
        """Say it of a run that is driven here, now, or tell what its own end has said."""
        try:
            passed = await self._db.write(sla.pass_now, run_id, now=clock.now())
            passed = passed or await self._db.read(sla.closed_late, run_id)
        except StoreUnavailable as error:
            log.warning("run %d: its SLA has passed: %s", run_id, error)  # the sweep says it later
            return
        self._tell([passed] if passed else [])

    def _tell(self, found: list[Passed]) -> None:
        for passed in found:
            what = f"run {passed.run_id}" if passed.run_id else f"slot {_time(passed.execution_date)}"
            log.warning("%s of %s: its SLA passed at %s", what, passed.pipeline_uuid, _time(passed.sla_at))
            self._bus.publish(_event(passed))
            if passed.run_id and passed.status in RUN_TERMINAL and passed.reason == sla.REASON:
                ended = RunEnded(run_id=passed.run_id, status=passed.status, reason=passed.reason)
                self._bus.publish(ended)


def _event(passed: Passed) -> SlaMissed:
    return SlaMissed(
        run_id=passed.run_id or NO_RUN,
        pipeline_uuid=passed.pipeline_uuid,
        pipeline_schedule_id=passed.schedule_id,
        execution_date=passed.execution_date,
        sla_at=passed.sla_at,
    )


def _time(when: datetime | None) -> str:
    return f"{when:%Y-%m-%d %H:%M:%SZ}" if when else ""
