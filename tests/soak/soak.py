"""Kill the service at random moments, again and again, and check after every kill that nothing is wrong."""

import random
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.soak import checks, project
from tests.soak.client import Client
from tests.soak.service import Service, left_after, logged, read_ledger, wait_for

Say = Callable[[str], None]


@dataclass
class Soak:
    """One soak: `kills` times in a folder of its own."""

    folder: Path
    kills: int
    seed: int
    database: str = ""
    services: int = 1
    longest_s: float = 3.0
    say: Say = print
    found: list[str] = field(default_factory=list)
    recovery_s: list[float] = field(default_factory=list)
    #: (when the restart was asked for, pid, runs whose blocks ran at the kill)
    restarts: list[tuple[float, int, list[int]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        folder = project.make(self.folder / "project")
        ledger = self.folder / "ledger"
        ledger.mkdir()
        names = [f"s{number}" for number in range(1, self.services + 1)]
        homes = {n: {"RUNWRIGHT_HOME": str(self.folder / n / "home")} for n in names}
        given = {"RUNWRIGHT_DATABASE_URL": self.database, "RUNWRIGHT_DRAIN_S": "5"}
        self._fleet = [Service(folder, ledger, {**given, **homes[n]}, name=n) for n in names]
        self._url = self.database or f"sqlite:///{self.folder / 's1' / 'home' / 'runwright.db'}"
        self._ledger = ledger

    def run(self) -> list[str]:
        """Everything that was wrong; empty is what we want."""
        self.say(f"soak: {self.kills} kills, seed {self.seed}, {self._url}")
        for service in self._fleet:
            service.start()
            service.wait_ready()
        client = Client([service.url for service in self._fleet], self.seed)
        client.start()
        try:
            for number in range(1, self.kills + 1):
                self._round(number)
        finally:
            client.finish()
        self._settle(client)
        return self.found

    def _round(self, number: int) -> None:
        """Kill at a random moment, mostly of its work, sometimes of its start."""
        service = self._random.choice(self._fleet)
        if self._random.random() < 0.85:
            service.wait_ready()
        moment = self._random.uniform(0.05, self.longest_s)
        time.sleep(moment)
        family = service.family()
        service.kill()
        wrong = checks.invariants_of(self._url) if self._is_there() else []
        interrupted = checks.look(self._url, checks.running) if self._is_there() else []
        service.start()
        if self.services == 1:
            self.restarts.append((service.started_at, service.pid, interrupted))
        self._note(number, left_after(family) + wrong)
        self.say(
            f"kill {number} after {moment:.2f} s: {len(interrupted)} runs interrupted, {len(wrong)} wrong"
        )

    def _is_there(self) -> bool:
        return bool(self.database) or Path(self._url.removeprefix("sqlite:///")).exists()

    def _note(self, number: int, wrong: list[str]) -> None:
        for what in wrong:
            self.say(f"!! kill {number}: {what}")
            self.found.append(f"kill {number}: {what}")

    def _settle(self, client: Client) -> None:
        """Let everything end, stop in peace, look at everything once more."""
        for service in self._fleet:
            service.wait_ready()
        promised = set(client.acknowledged)
        self._silence_triggers()
        wait_for(
            lambda: not promised & set(checks.look(self._url, checks.live)), 120, "every promised run is over"
        )
        codes = [service.terminate() for service in self._fleet]
        facts = checks.look(self._url, checks.facts)
        wrong = [f"exit codes {codes}"] if any(codes) else []
        wrong += [f"processes live on: {left}" for s in self._fleet if (left := s.family())]
        wrong += checks.invariants_of(self._url) + checks.endings(facts, client.acknowledged)
        wrong += checks.effects(facts, read_ledger(self._ledger)) + logged(self._fleet)
        self._note(0, wrong)
        self._report(client, facts)

    def _silence_triggers(self) -> None:
        for path in self._fleet[0].project.glob("pipelines/*/triggers.yaml"):
            path.write_text(path.read_text().replace("status: active", "status: inactive"))

    def _report(self, client: Client, facts: checks.Facts) -> None:
        outcomes = Counter(attempt.outcome for attempt in facts.attempts)
        self.say(f"promised {len(client.acknowledged)}, unanswered {client.unanswered}")
        self.say(f"runs {dict(Counter(facts.statuses.values()))}, attempts {dict(outcomes)}")
        for at, pid, runs in self.restarts:
            when = checks.look(self._url, lambda tx, pid=pid, runs=runs: checks.went_on(tx, pid, runs))  # type: ignore[misc]
            if when is not None:
                self.recovery_s.append(when.timestamp() - at)
        if self.recovery_s:
            times = sorted(self.recovery_s)
            self.say(
                f"from restart until a dead process's runs go on: median {statistics.median(times):.2f} s,"
                f" p90 {times[int(len(times) * 0.9) - 1]:.2f} s, longest {times[-1]:.2f} s of {len(times)}"
            )
        self.say(f"{len(self.found)} faults")
