"""The alarm clock: APScheduler with a handful of jobs that live in memory. It remembers nothing.

What is due is in the database; a job only says "look now". `coalesce` and an unlimited grace make a blocked
loop cost one late pass, never a lost or a doubled one.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from apscheduler.executors.asyncio import AsyncIOExecutor
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from app import clock
from app.errors import StoreUnavailable

log = logging.getLogger(__name__)

#: The host's clock is looked at so often; one that lost more than this against the monotonic one was set back.
WATCH_S, STEP_S = 1.0, 2.0
Pass = Callable[[], Awaitable[Any]]


class _Executor(AsyncIOExecutor):  # type: ignore[misc]
    """APScheduler's own, but a pass that was stopped before it began is no fault."""

    def _run_job_error(self, job_id: str, error: BaseException, trace: Any = None) -> None:
        if not isinstance(error, asyncio.CancelledError):
            super()._run_job_error(job_id, error, trace)


class Timers:
    """Runs passes at intervals, and one of them also at a moment of its own."""

    def __init__(self) -> None:
        self._scheduler = AsyncIOScheduler(
            timezone=UTC,
            executors={"default": _Executor()},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        # One line a skipped pass would be noise: a pass that is still running will see what is due.
        logging.getLogger("apscheduler").setLevel(logging.ERROR)
        self._watch: asyncio.TimerHandle | None = None
        self._seen: tuple[datetime, float] | None = None
        self._stopped = False

    def every(self, seconds: float, name: str, work: Pass, *, jitter_s: float | None = None) -> None:
        """Run `work` every so many seconds, never twice at once."""
        self._scheduler.add_job(
            self._until_stopped(work), "interval", seconds=seconds, id=name, jitter=jitter_s
        )

    def at(self, when: datetime, name: str, work: Pass) -> None:
        """Run `work` once at `when`; a later call for the same name replaces it."""
        self._scheduler.add_job(
            self._until_stopped(work), "date", run_date=when, id=name, replace_existing=True
        )

    def _until_stopped(self, work: Pass) -> Pass:
        """A pass that ends with the timers, and says nothing of it: APScheduler would log that as a fault."""

        async def run() -> None:
            try:
                await work()
            except asyncio.CancelledError:
                if not self._stopped:
                    raise

        return run

    def start(self) -> None:
        """Begin on the running loop."""
        self._scheduler.start()
        self._look()

    def _look(self) -> None:
        """Wake every job when the host's clock was set back: APScheduler would sleep until it has caught up."""
        wall, steady = clock.host_now(), clock.monotonic()
        if self._seen is not None:
            seen_wall, seen_steady = self._seen
            if steady - seen_steady - (wall - seen_wall) / timedelta(seconds=1) > STEP_S:
                for job in self._scheduler.get_jobs():
                    job.modify(next_run_time=wall)
        self._seen = wall, steady
        self._watch = asyncio.get_running_loop().call_later(WATCH_S, self._look)

    def stop(self) -> None:
        """End; a pass that is running is cancelled."""
        if self._stopped:
            return
        self._stopped = True
        if self._watch is not None:
            self._watch.cancel()
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)


def guarded(name: str, work: Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[None]]:
    """A pass that logs an absent database in one line; the next pass tries again."""

    async def run() -> None:
        try:
            await work()
        except StoreUnavailable as error:
            log.warning("%s: %s", name, error)

    return run
