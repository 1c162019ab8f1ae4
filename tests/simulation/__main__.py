"""`make simulate`: a year of 200 triggers beside an oracle, then a thousand clusters with faults.

`--seed N` lives through one seed of each; `--only year` or `--only cluster` leaves the other out. A report is left in
`reports/`.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from app.store.migrate import upgrade
from app.store.opening import open_database
from tests.report import report
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


def _clusters(seed: int | None, seeds: int) -> int:
    which = ["--seeds", str(seeds), "--jobs", str(os.cpu_count() or 1)]
    if seed is not None:
        which = ["--seed", str(seed)]
    command = [sys.executable, "-m", "tests.simulation.cluster", *which]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
    return process.returncode


def main() -> int:
    """Read the arguments and simulate."""
    parser = argparse.ArgumentParser(prog="make simulate", description=__doc__)
    parser.add_argument("--seed", type=int, help="live through this one of each")
    parser.add_argument("--only", choices=("year", "cluster"))
    parser.add_argument("--seeds", type=int, default=1000, help="clusters")
    parser.add_argument("--triggers", type=int, default=200)
    parser.add_argument("--days", type=float, default=365)
    parser.add_argument("--disturbances", type=int, default=1500)
    asked = parser.parse_args()
    with report("simulate"):
        if asked.only != "cluster":
            year = 1 if asked.seed is None else asked.seed
            asyncio.run(_run(year, asked.triggers, asked.days, asked.disturbances))
        return 0 if asked.only == "year" else _clusters(asked.seed, asked.seeds)


if __name__ == "__main__":
    sys.exit(main())
