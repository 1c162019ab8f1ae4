"""`python -m tests.simulation.cluster`: seeded lives of a cluster with faults; `--seed N` replays one."""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path

from app.store.migrate import upgrade
from tests.simulation.cluster import project
from tests.simulation.cluster.bugs import BUGS
from tests.simulation.cluster.server import Store
from tests.simulation.cluster.world import Lived, SimulationFailed, simulate


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.cluster", description=__doc__)
    parser.add_argument("--seed", type=int, help="live through this one alone")
    parser.add_argument("--seeds", type=int, default=20, help="how many")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--steps", type=int, default=2000, help="timers that fire before the faults end")
    parser.add_argument("--jobs", type=int, default=1, help="processes to use")
    known = "; ".join(f"{name}: {bug.about}" for name, bug in BUGS.items())
    parser.add_argument("--bug", choices=sorted(BUGS), help=f"with a fault in the service ({known})")
    parser.add_argument("--go-on", action="store_true", help="after a seed that failed, too")
    parser.add_argument("--each", action="store_true", help="a line for each seed")
    return parser.parse_args()


def main() -> int:
    """Read the arguments and simulate; 1 when a seed fails."""
    asked = _arguments()
    if os.environ.get("PYTHONHASHSEED") != "0":  # a set of texts must have the same order in a replay
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, "PYTHONHASHSEED": "0"})
    seeds = [asked.seed] if asked.seed is not None else range(asked.first, asked.first + asked.seeds)
    began, lived, failed = time.monotonic(), list[Lived](), 0
    with tempfile.TemporaryDirectory() as place:
        one = partial(live, place=place, steps=asked.steps, bug=asked.bug)
        upgrade(f"sqlite:///{Path(place) / 'template.db'}")
        project.write(Path(place) / "project")
        for found in _in_turn(one, seeds, asked.jobs):
            if isinstance(found, str):
                print(found, flush=True)
                if not asked.go_on:
                    return 1
                failed += 1
                continue
            lived.append(found)
            if asked.each:
                print(found, flush=True)
        if len(lived) > 1 and one(lived[0].seed) != lived[0]:
            print(f"seed {lived[0].seed} is not the same when it is lived through again")
            return 1
    print(f"{summary(lived)}; {failed or 'nothing'} wrong; {time.monotonic() - began:.0f} s")
    return int(failed > 0)


def _in_turn(one: "partial[Lived | str]", seeds: Iterable[int], jobs: int) -> Iterator[Lived | str]:
    if jobs == 1:
        yield from map(one, seeds)
        return
    with ProcessPoolExecutor(jobs) as pool:
        try:
            yield from pool.map(one, seeds)
        finally:
            pool.shutdown(cancel_futures=True)


def live(seed: int, *, place: str, steps: int, bug: str | None) -> Lived | str:
    """What there was in one seed, or what is wrong."""
    try:
        return simulate(seed, folder=Path(place) / "project", store=_store(place), steps=steps, bug=bug)
    except SimulationFailed as failure:
        return str(failure)


@cache
def _store(place: str) -> Store:
    return Store(str(Path(place) / "template.db"))


def summary(lived: list[Lived]) -> str:
    """What there was in those in which all was well."""
    minutes = sum(one.seconds for one in lived) / 60
    total = {name: sum(getattr(one, name) for one in lived) for name in Lived.COUNTED}
    counted = ", ".join(f"{number} {name}" for name, number in total.items())
    return f"{len(lived)} clusters, {minutes:.0f} simulated minutes: {counted}"


if __name__ == "__main__":
    sys.exit(main())
