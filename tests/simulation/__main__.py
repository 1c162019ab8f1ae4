"""`make simulate`: a year of 200 triggers with outages, pauses and edits, beside an oracle."""

import argparse
import asyncio
import tempfile
from pathlib import Path

from app.store.migrate import upgrade
from app.store.opening import open_database
from tests.simulation.year import simulate


async def _run(seed: int, triggers: int, days: float, disturbances: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        url = f"sqlite:///{Path(place) / 'year.db'}"
        await asyncio.to_thread(upgrade, url)
        db = open_database(url)
        await db.open()
        try:
            count = await simulate(
                db,
                Path(place) / "project",
                seed=seed,
                triggers=triggers,
                days=days,
                disturbances=disturbances,
            )
        finally:
            await db.close()
    print(f"seed {seed}: {count} slots of {triggers} triggers in {days:g} days are as the oracle says")


def main() -> None:
    """Read the arguments and simulate."""
    parser = argparse.ArgumentParser(prog="make simulate", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--triggers", type=int, default=200)
    parser.add_argument("--days", type=float, default=365)
    parser.add_argument("--disturbances", type=int, default=1500)
    asked = parser.parse_args()
    asyncio.run(_run(asked.seed, asked.triggers, asked.days, asked.disturbances))


if __name__ == "__main__":
    main()
