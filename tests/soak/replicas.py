"""Scenario: replicas are killed again and again while thousands of runs come in; others take over by the lease."""

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from tests.soak import checks, rows
from tests.soak.load import Load
from tests.soak.replica import Replica
from tests.soak.service import alive
from tests.soak.stage import Stage, spread

#: a run of a dead node goes on within its lease and this
BEYOND_LEASE_S = 5.0
LOOK_EVERY = 4
_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass
class Kills:
    """A random replica is killed every `every_s` seconds, and started again at once."""

    stage: Stage
    kills: int
    every_s: float
    runs: int
    #: node -> when its process was killed
    died: dict[str, datetime] = field(default_factory=dict)
    taken_s: list[float] = field(default_factory=list)

    def run(self) -> list[str]:
        stage, seconds = self.stage, self.kills * self.every_s
        stage.say(f"{self.runs} runs, {self.kills} kills in {seconds:g} s, lease {stage.lease_s:g} s")
        stage.start()
        load = Load(stage.urls, seed=stage.seed, count=self.runs, per_s=self.runs / seconds)
        load.start()
        try:
            self._kill_all(random.Random(stage.seed))
            stage.settle(load)
        finally:
            load.abandon()
            stage.end()
        self._takeovers()
        return stage.found

    def _kill_all(self, chance: random.Random) -> None:
        began = time.monotonic()
        for number in range(1, self.kills + 1):
            moment = began + (number - 1 + chance.uniform(0.5, 1)) * self.every_s
            time.sleep(max(0.0, moment - time.monotonic()))
            if not self.stage.timed:  # a slow machine shall have the others serve when one is killed
                for replica in self.stage.fleet:
                    replica.wait_ready(120)
            self._kill(number, chance.choice(self.stage.fleet))

    def _kill(self, number: int, victim: Replica) -> None:
        stage = self.stage
        node = checks.look(stage.database, lambda tx: rows.node_of(tx, victim.where))
        busy = checks.look(stage.database, lambda tx: rows.busy(tx, node)) if node else 0
        family = victim.family()
        victim.kill()
        if node:
            self.died[node] = datetime.now(UTC)
        survivors = (
            alive(family) if victim.apart else set()
        )  # a namespace ends as one; else the warden needs a moment
        victim.start()
        stage.say(f"kill {number}: {victim.name}{'' if node else ' as it started'}, {busy} blocks ran")
        stage.note([f"outlived their replica: {survivors}"] if survivors else [], f"kill {number}: ")
        if number % LOOK_EVERY == 0:
            stage.note(checks.invariants_of(stage.database), f"kill {number}: ")

    def _takeovers(self) -> None:
        stage = self.stage
        taken = checks.look(stage.database, lambda tx: rows.taken_over(tx, self.died))
        begun = checks.look(stage.database, rows.begun)
        self.taken_s = [(at - self.died[node]).total_seconds() for node, at in taken]
        stage.say(f"from a kill until what it interrupted was taken over: {spread(self.taken_s)}")
        stage.note(checks.look(stage.database, lambda tx: rows.left_with(tx, self.died)))
        late = [(at - self._in_time(node, begun)).total_seconds() for node, at in taken]
        stage.in_time(late, 0, "a takeover was late by")

    def _in_time(self, node: str, begun: Mapping[str, datetime]) -> datetime:
        """When the takeover from a dead node should be done: its lease and a little after its death, or after the
        birth of whoever lived long enough to see that: when all are killed, there is nobody to take over."""
        lease, little = timedelta(seconds=self.stage.lease_s), timedelta(seconds=BEYOND_LEASE_S)
        when = [
            done
            for other, born in begun.items()
            if other != node
            and (done := max(self.died[node], born) + lease + little) < self.died.get(other, _NEVER)
        ]
        return min(when, default=_NEVER)
