"""How late healthy triggers are decided beside malformed ones that come into the table while the service runs.

python -m benchmarks.malformed [--healthy 100] [--malformed 2000] [--seconds 60] [--database sqlite]
"""

import argparse
import asyncio
import logging
import os
import random
import statistics
from datetime import timedelta
from pathlib import Path

from app import clock
from app.scheduler.engine import Engine
from app.store.db import Tx
from app.store.sql import SCHEDULE, SLOT
from benchmarks.schedules import DATABASES, databases
from tests.engine.conftest import World
from tests.engine.malformed import forget, malformed, written

_EVERY_S = 5
_PIPELINE = "etl"


async def lags(engine: Engine, asked: argparse.Namespace, dice: random.Random) -> list[float]:
    """Seconds from each slot of the healthy triggers until it was decided. Fails when one was not."""
    now = clock.now()
    start = now.replace(microsecond=0) + timedelta(seconds=_EVERY_S)
    healthy = [
        written(n, f"@every {_EVERY_S}s", cursor_at=now, next_fire_at=start, start_time=start)
        for n in range(1, asked.healthy + 1)
    ]
    await engine.db.write(lambda tx: tx.execute(SCHEDULE.insert(), healthy) and None)
    await asyncio.sleep(_EVERY_S - 0.7)  # they come just before the first slot: their tick is in its way
    bad = [malformed(dice, n) for n in range(10_000, 10_000 + asked.malformed)]
    await engine.db.write(lambda tx: tx.execute(SCHEDULE.insert(), bad) and None)
    await asyncio.sleep(asked.seconds)

    def found(tx: Tx) -> list[float]:
        decided = tx.execute(SLOT.select().where(SLOT.c.pipeline_schedule_id < 10_000)).all()
        assert {row.outcome for row in decided} == {"run"}
        assert len(decided) >= asked.healthy * (asked.seconds // _EVERY_S)
        return [(row.decided_at - row.execution_date) / timedelta(seconds=1) for row in decided]

    return await engine.db.read(found)


async def measure(name: str, url: str, folder: Path, asked: argparse.Namespace, dice: random.Random) -> None:
    """One database."""
    folder.mkdir()
    (folder / "metadata.yaml").write_text("name: bench\n")
    world = World(folder, url)
    world.pipeline(_PIPELINE, {"a": []})
    async with world.serving(scheduling=True) as engine:
        found = await lags(engine, asked, dice)
        await engine.db.write(forget)
    print(
        f"{name}: {len(found)} slots of {asked.healthy} triggers beside {asked.malformed} malformed ones:"
        f" decided after {statistics.median(found):.3f} s (median), {max(found):.3f} s (longest);"
        f" load {os.getloadavg()[0]:.1f}",
        flush=True,
    )


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.malformed", description=__doc__)
    parser.add_argument("--healthy", type=int, default=100)
    parser.add_argument("--malformed", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--database", choices=DATABASES)
    asked = parser.parse_args()
    logging.getLogger("app").setLevel(logging.ERROR)  # each malformed trigger is told of
    with databases(asked.database) as (place, makers):
        for number in range(asked.rounds):
            for name, make in makers.items():
                folder = place / f"{name}-{number}"
                asyncio.run(measure(name, make(), folder, asked, random.Random(2026 + number)))


if __name__ == "__main__":
    main()
