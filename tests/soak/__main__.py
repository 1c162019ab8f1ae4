"""`make soak`: real services, real faults, and everything checked. `python -m tests.soak [scenario …]`.

By default `storm` and `failpoints`; `all` for each of them.

    storm      everything at once on three replicas, for 10 minutes: services kill themselves at named places, workers
               and wardens are killed, replicas stand still, Postgres crashes, answers are lost, while runs come in
    failpoints what can happen at every named place of an engine on SQLite and on Postgres, one after the other
    kills      one service on SQLite (SOAK_DATABASE=postgres: on Postgres), killed 100 times at random moments
    fanout     one service as in kills, killed 50 times in the middle of children, conditions and callbacks
    replicas   three replicas on Postgres, one of them killed every 5 s while 2,000 runs come in
    lease      the same at the lease that is the default, with a kill every 30 s
    hands      workers and wardens of three replicas are killed 120 times
    frozen     a replica stands still for longer than its lease, then goes on, 20 times
    ticks      eight processes race for 1,000 slots
    limit      16 clients of three replicas start 1,000 runs of which three may run at once
    outage     Postgres restarted 20 times as after a crash, and 200 answers to commits lost

`SOAK_MINUTES` (10: the numbers above) scales the numbers; of `failpoints` it takes a part when it is less.
`SOAK_SEED` (random, printed), `RUNWRIGHT_LEASE_S` (5) of `storm`, `SOAK_KILLS` and `SOAK_SERVICES` of `kills` (more
than one need Postgres), `SOAK_KEEP`: a folder for what a bad one has left. A report is left in `reports/`.
"""

import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.failpoints.play import play_all, some
from tests.postgres import Server, serving
from tests.report import report
from tests.soak.fanout import Fanout
from tests.soak.frozen import Freezes
from tests.soak.hands import Hands
from tests.soak.limit import Limit
from tests.soak.outage import Outage, wired
from tests.soak.replicas import Kills
from tests.soak.soak import Soak
from tests.soak.stage import Stage
from tests.soak.storm import Storm
from tests.soak.ticks import Ticks

#: minutes for which the storm lasts with the numbers that are named above
WHOLE = 10.0
DEFAULT = ("storm", "failpoints")


def say(text: str) -> None:
    print(f"  {text}", flush=True)


@dataclass(frozen=True)
class Setting:
    """What a scenario is given."""

    server: Server
    folder: Path
    seed: int
    scale: float

    def many(self, number: int, least: int = 1) -> int:
        """A number of the whole suite, scaled."""
        return max(least, round(number * self.scale))

    def database(self) -> str:
        return self.server.url(self.server.create())

    def stage(self, **more: Any) -> Stage:
        given = {"folder": self.folder, "database": self.database(), "seed": self.seed, "say": say}
        return Stage(**{**given, **more})


def storm(to: Setting) -> list[str]:
    url = to.database()
    lease_s = float(os.environ.get("RUNWRIGHT_LEASE_S") or 5)
    with wired(url) as wire:
        return Storm(
            to.stage(database=url, seen=wire.url, lease_s=lease_s, triggers=True),
            wire,
            to.server.restart,
            seconds=600 * to.scale,
            runs=to.many(3300, 30),
            kills=to.many(110, 3),
            hands=to.many(110, 3),
            freezes=to.many(21),
            restarts=to.many(21),
            losses=to.many(100, 2),
        ).run()


def failpoints(to: Setting) -> list[str]:
    return play_all(to.server, some(to.scale, to.seed))


def kills(to: Setting) -> list[str]:
    on_postgres = os.environ.get("SOAK_DATABASE") == "postgres"
    return Soak(
        to.folder,
        kills=int(os.environ.get("SOAK_KILLS") or to.many(100, 3)),
        seed=to.seed,
        database=to.database() if on_postgres else "",
        services=int(os.environ.get("SOAK_SERVICES") or 1),
        say=say,
    ).run()


def fanout(to: Setting) -> list[str]:
    on_postgres = os.environ.get("SOAK_DATABASE") == "postgres"
    soak = Fanout(to.folder, to.many(50, 3), to.seed, to.database() if on_postgres else "")
    found = soak.run()
    say(f"{soak.met} of {soak.kills} kills met a running block, in {len(soak.runs)} runs")
    for what in found:
        say(f"!! {what}")
    return found


def replicas(to: Setting) -> list[str]:
    return Kills(to.stage(), kills=to.many(24, 2), every_s=5, runs=to.many(2000, 50)).run()


def lease(to: Setting) -> list[str]:
    return Kills(to.stage(lease_s=20), kills=to.many(4, 2), every_s=30, runs=to.many(800, 50)).run()


def hands(to: Setting) -> list[str]:
    return Hands(to.stage(), kills=to.many(120, 10)).run()


def frozen(to: Setting) -> list[str]:
    return Freezes(to.stage(), times=to.many(20)).run()


def ticks(to: Setting) -> list[str]:
    return Ticks(to.folder, to.database(), to.seed, slots=to.many(100, 2), say=say).run()


def limit(to: Setting) -> list[str]:
    return Limit(to.stage(lease_s=20), runs=to.many(1000, 50)).run()


def outage(to: Setting) -> list[str]:
    url = to.database()
    restarts, losses = to.many(20), to.many(200, 10)
    with wired(url) as wire:
        return Outage(
            to.stage(lease_s=20, database=url, seen=wire.url),
            wire,
            to.server.restart,
            restarts=restarts,
            losses=losses,
            runs=to.many(1500, 100),
            seconds=6.0 * (restarts + 1),
        ).run()


SCENARIOS: dict[str, Callable[[Setting], list[str]]] = {
    scenario.__name__: scenario
    for scenario in (storm, failpoints, kills, fanout, replicas, lease, hands, frozen, ticks, limit, outage)
}


def one(name: str, server: Server, seed: int, scale: float) -> bool:
    """Play a scenario; whether all was well. What a bad one has left is kept."""
    print(f"{name}: seed {seed}, load {os.getloadavg()[0]:.1f}", flush=True)
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix=f"rw-soak-{name}-"))
    try:
        found = SCENARIOS[name](Setting(server, folder, seed, scale))
    except Exception as error:  # the next scenario shall have its turn
        found = [f"{type(error).__name__}: {error}"]
        say(f"!! {found[0]}")
    verdict = (
        "all well" if not found else f"{len(found)} faults; what is left lies in {_keep(folder, name, seed)}"
    )
    print(f"{name}: {verdict} ({time.monotonic() - began:.0f} s, seed {seed})", flush=True)
    if not found:
        _remove(folder)
    return not found


def _keep(folder: Path, name: str, seed: int) -> Path:
    place = os.environ.get("SOAK_KEEP")
    return Path(shutil.move(folder, Path(place) / f"{name}-{seed}")) if place else folder


def _remove(folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="rw-soak-", ignore_cleanup_errors=True) as bin_:
        folder.rename(Path(bin_) / "done")


def main(names: list[str]) -> int:
    """1 when anything was wrong, 2 for a scenario that is not there."""
    names = list(SCENARIOS) if names == ["all"] else names or list(DEFAULT)
    if unknown := set(names) - SCENARIOS.keys():
        print(f"no such scenario: {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
        return 2
    scale = float(os.environ.get("SOAK_MINUTES") or WHOLE) / WHOLE
    seed = int(os.environ.get("SOAK_SEED") or random.randrange(10**6))
    with report("soak"), serving() as server:
        results = {name: one(name, server, seed, scale) for name in names}
        bad = [name for name, well in results.items() if not well]
        print(f"bad: {', '.join(bad)}" if bad else "all well", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
