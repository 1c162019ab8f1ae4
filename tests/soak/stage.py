"""What every scenario on replicas shares: some replicas on one Postgres, a load, and the verdict at the end."""

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.soak import checks, project, rows
from tests.soak.load import Load
from tests.soak.replica import Replica, alone
from tests.soak.service import logged, read_ledger, wait_for

SETTLE_S = 180

Say = Callable[[str], None]


@dataclass
class Stage:
    """Replicas of one project. `database`: what checks read; `seen`: the database as the replicas reach it."""

    folder: Path
    database: str
    seed: int
    replicas: int = 3
    lease_s: float = 5
    apart: bool = True
    triggers: bool = False
    #: whether times are judged: not where others load the machine
    timed: bool = True
    seen: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    say: Say = print
    found: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        made = project.make(self.folder / "project", triggers=self.triggers)
        self.ledger = self.folder / "ledger"
        self.ledger.mkdir()
        given = {
            "RUNWRIGHT_DATABASE_URL": self.seen or self.database,
            "RUNWRIGHT_DRAIN_S": "5",
            "RUNWRIGHT_LEASE_S": f"{self.lease_s:g}",
            **self.settings,
        }
        self.fleet = [
            Replica(
                made,
                self.ledger,
                {**given, "RUNWRIGHT_HOME": str(self.folder / f"home-{n}")},
                name=f"r{n}",
                apart=self.apart,
            )
            for n in range(1, self.replicas + 1)
        ]

    @property
    def urls(self) -> list[str]:
        return [replica.url for replica in self.fleet]

    def start(self) -> None:
        """All replicas, ready."""
        if self.apart and not alone():
            self.say("no pid namespaces here: replicas see each other's processes, and take over at once")
        for replica in self.fleet:
            replica.start()
        for replica in self.fleet:
            replica.wait_ready(60)

    def end(self) -> None:
        """Leave nothing behind, however it went."""
        for replica in self.fleet:
            replica.end()

    def note(self, wrong: Iterable[str], where: str = "") -> None:
        """Remember what is wrong."""
        for what in wrong:
            self.say(f"!! {where}{what}")
            self.found.append(f"{where}{what}")

    def in_time(self, times: Iterable[float], limit: float, what: str) -> None:
        """Times beyond the limit are wrong where times are judged."""
        if self.timed:
            self.note(f"{what} {took:.1f} s, more than {limit:g}" for took in times if took > limit)

    def settle(self, load: Load, seconds: float = SETTLE_S) -> checks.Facts:
        """Let every acknowledged run end, stop in peace, and look at everything."""
        load.join()
        for replica in self.fleet:
            replica.wait_ready(60)
        began = time.monotonic()
        try:
            wait_for(lambda: not self._live(load), seconds, "every acknowledged run is over")
        except AssertionError:
            self.note([f"not over after {seconds:g} s: runs {sorted(self._live(load))[:20]}"])
        self.say(
            f"{len(load.acknowledged)} acknowledged, all over {time.monotonic() - began:.1f} s after the last"
        )
        codes = [replica.terminate() for replica in self.fleet]
        self.note([f"exit codes {codes}"] if any(codes) else [])
        return self._verdict(load)

    def _live(self, load: Load) -> set[int]:
        time.sleep(0.3)  # each look costs what the replicas need
        return set(load.acknowledged) & set(checks.look(self.database, checks.live))

    def _verdict(self, load: Load) -> checks.Facts:
        facts = checks.look(self.database, checks.facts)
        self.note(load.faults)
        self.note(f"processes of {r.name} live on: {left}" for r in self.fleet if (left := r.family()))
        self.note(checks.invariants_of(self.database))
        self.note(checks.endings(facts, load.acknowledged))
        self.note(checks.effects(facts, read_ledger(self.ledger)))
        self.note(checks.look(self.database, lambda tx: rows.asked_once(tx, set(load.acknowledged))))
        self.note(checks.look(self.database, rows.children))
        self.note(checks.look(self.database, rows.zombies))
        self.note(logged(self.fleet))
        self._report(load, facts)
        return facts

    def _report(self, load: Load, facts: checks.Facts) -> None:
        outcomes = Counter(attempt.outcome for attempt in facts.attempts)
        self.say(f"requests {dict(load.counts)}; answered in {spread(load.took_s)}")
        self.say(f"runs {dict(Counter(facts.statuses.values()))}; attempts {dict(outcomes)}")


def spread(times: list[float]) -> str:
    """Median, 99th percentile and longest, in words."""
    if not times:
        return "no time at all"
    ordered = sorted(times)
    late = ordered[max(0, int(len(ordered) * 0.99) - 1)]
    middle = statistics.median(ordered)
    return f"median {middle:.2f} s, p99 {late:.2f} s, longest {ordered[-1]:.2f} s (of {len(ordered)})"
