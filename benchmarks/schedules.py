"""Many triggers: how fast slots that are due at once are decided, and what triggers cost that are not due.

python -m benchmarks.schedules [--due 1000] [--idle 10000] [--seconds 60] [--database sqlite]
"""

import argparse
import asyncio
import contextlib
import itertools
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from app import clock
from app.pipelines.catalogue import Catalogue
from app.scheduler import catchup
from app.scheduler.ticker import Ticker
from app.store import nodes
from app.store.db import Database, Tx
from app.store.ids import Ids
from app.store.migrate import upgrade
from app.store.opening import open_database
from app.store.sql import RUN, SCHEDULE, SLOT
from benchmarks.service import serving, write_project
from tests import postgres
from tests.store.conftest import node_row

DATABASES = ("sqlite", "postgresql")
_PIPELINE = "first"


class _NoAdmission:
    def has_news(self) -> None: ...


def _rows(count: int, *, due: bool) -> list[dict[str, Any]]:
    """Hourly triggers: due since the full hour, or with a first slot tomorrow."""
    hour = clock.now().replace(minute=0, second=0, microsecond=0)
    cursor, look = (hour - timedelta(seconds=1), hour) if due else (hour + timedelta(days=1),) * 2
    shared = {
        "pipeline_uuid": _PIPELINE,
        "schedule_type": "time",
        "schedule_interval": "@hourly",
        "status": "active",
        "variables": {},
        "settings": {},
        "tags": [],
        "managed_by": "api",
        "revision": 1,
        "cursor_at": cursor,
        "next_fire_at": look,
        "created_at": hour,
        "updated_at": hour,
    }
    return [{"id": 1_000_000 + n, "name": f"t{n}", **shared} for n in range(count)]


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    """A migrated database."""
    await asyncio.to_thread(upgrade, url)
    db = open_database(url)
    await db.open()
    try:
        yield db
    finally:
        await db.close()


async def decide(url: str, folder: Path, count: int) -> float:
    """Seconds from the tick to the commit of all slots. Fails unless each trigger has one slot and one run."""
    catalogue = Catalogue(folder, {}, catchup.judge)
    catalogue.refresh()
    async with opened(url) as db:
        me = node_row()
        await db.write(nodes.register, me)
        await db.write(lambda tx: tx.execute(SCHEDULE.insert(), _rows(count, due=True)) and None)
        runs, blocks = Ids(db, "pipeline_run"), Ids(db, "block_run")
        ticker = Ticker(
            db=db,
            catalogue=catalogue,
            node_id=me.id,
            intake=_NoAdmission(),  # type: ignore[arg-type]
            run_ids=runs,
            block_ids=blocks,
        )
        began = time.perf_counter()
        await ticker.tick()
        took = time.perf_counter() - began

        def counts(tx: Tx) -> tuple[int, int, int]:
            slots = tx.execute(SLOT.select()).all()
            made = len(tx.execute(RUN.select()).all())
            return len(slots), len({slot.pipeline_schedule_id for slot in slots}), made

        assert await db.read(counts) == (count, count, count)
        return took


async def idle(url: str, folder: Path, count: int, seconds: float) -> float:
    """CPU seconds that the service process uses in so many seconds beside triggers that are not due."""
    async with opened(url) as db:
        if count:
            await db.write(lambda tx: tx.execute(SCHEDULE.insert(), _rows(count, due=False)) and None)
    async with serving(folder, url) as service:
        await asyncio.sleep(5)  # what a start does once is over
        before = service.cpu_s()
        await asyncio.sleep(seconds)
        return service.cpu_s() - before


@contextlib.contextmanager
def databases(only: str | None) -> Iterator[tuple[Path, dict[str, Callable[[], str]]]]:
    """A folder for what is measured, and what makes an empty database of each kind: its URL."""
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rw-bench-")))
        numbers = itertools.count()
        makers: dict[str, Callable[[], str]] = {}
        if only != "postgresql":
            makers["sqlite"] = lambda: f"sqlite:///{place / f'{next(numbers)}.db'}"
        if only != "sqlite":
            server = stack.enter_context(postgres.serving())
            makers["postgresql"] = lambda: server.url(server.create())
        yield place, makers


async def measure(asked: argparse.Namespace) -> None:
    """All measurements on each database."""
    with databases(asked.database) as (place, makers):
        folder = place / "bench"
        write_project(folder)
        for name, make in makers.items():
            for _ in range(asked.rounds):
                took = await decide(make(), folder, asked.due)
                print(f"{name}: {asked.due} due at once are decided in {took:.2f} s")
            for count in (0, asked.idle) if asked.idle else ():
                used = await idle(make(), folder, count, asked.seconds)
                print(
                    f"{name}: {count} that are not due: {used:.2f} CPU s in {asked.seconds:g} s", flush=True
                )


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.schedules", description=__doc__)
    parser.add_argument("--due", type=int, default=1000)
    parser.add_argument("--idle", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--database", choices=DATABASES)
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
