"""`make bench`: rounds over both databases, then the table."""

import argparse
import asyncio
import contextlib
import os
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path

from benchmarks import limits, measures
from benchmarks.measures import FIGURES
from benchmarks.service import serving, write_project
from tests import postgres

DATABASES = ("sqlite", "postgresql")
Values = dict[str, list[float]]


async def one_round(url: str | None, into: Values, floors: Values) -> None:
    """Start a service on an empty database, measure it, start it once more."""
    with tempfile.TemporaryDirectory(prefix="rw-bench-") as name:
        folder = Path(name) / "bench"
        write_project(folder)
        bare = await limits.measure(folder, postgres=url is not None)
        async with serving(folder, url) as service:
            found = {"start_empty": service.started_s, **await measures.all_of(service)}
            if url is not None:
                async with serving(folder, url, home=Path(name) / "second") as second:
                    found |= await measures.two_replicas(service, second, found["runs"])
        async with serving(folder, url) as service:
            found["start"] = service.started_s
    for key, value in found.items():
        into[key].append(value)
        floors[key].append(FIGURES[key].floor(bare))


async def rounds(count: int, databases: list[str]) -> None:
    """All rounds, the databases in turn, so that both meet the same weather."""
    results: dict[str, tuple[Values, Values]] = {
        name: (defaultdict(list), defaultdict(list)) for name in databases
    }
    before = os.getloadavg()[0]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(postgres.serving()) if "postgresql" in databases else None
        for number in range(count):
            for name in databases:
                print(f"round {number + 1} of {count}: {name}", flush=True)
                url = server.url(server.create()) if server and name == "postgresql" else None
                await one_round(url, *results[name])
    for name, (values, floors) in results.items():
        show(name, values, floors)
    print(f"{os.cpu_count()} cores; load average {before:.1f} before, {os.getloadavg()[0]:.1f} after")


def show(database: str, values: Values, floors: Values) -> None:
    """One table."""
    print(f"\n{database:36}{'median':>9}{'min':>9}{'max':>9}  {'limit':>9}{'ratio':>7}{'budget':>9}")
    for key, figure in FIGURES.items():
        taken, bare = values.get(key, []), floors.get(key, [])
        if not taken:
            continue  # SQLite has no replicas
        ratio = statistics.median(
            floor / value if figure.higher else value / floor
            for value, floor in zip(taken, bare, strict=True)
        )
        middle = statistics.median(taken)
        missed = middle < figure.budget if figure.higher else middle > figure.budget
        cells = "".join(f"{number:9.4g}" for number in (middle, min(taken), max(taken)))
        line = f"{figure.name:36}{cells}  {statistics.median(bare):9.4g}{ratio:7.1f}{figure.budget:9.4g}"
        print(f"{line} {figure.unit}{'  OVER BUDGET' if missed else ''}")


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--database", choices=DATABASES, action="append", help="only this one")
    asked = parser.parse_args()
    asyncio.run(rounds(asked.rounds, asked.database or list(DATABASES)))
    print("limit: an fsync a commit, a bare asyncio echo a request, a bare process round trip a block,")
    print(
        "or a bare process that imports the libraries; ratio: how many times that, the median over the rounds"
    )


if __name__ == "__main__":
    main()
