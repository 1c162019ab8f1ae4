"""Scenario: workers and wardens of live replicas are killed; no run is lost, nothing runs twice at once."""

import os
import random
import signal
import time
from contextlib import suppress
from dataclasses import dataclass

from tests.soak import checks
from tests.soak.frozen import user_code
from tests.soak.load import Load
from tests.soak.replica import Replica
from tests.soak.stage import Stage

#: What a killed worker was doing counts as a try of its block; a block that starts a run starts one a try.
SHAPES = {"chain": 4, "fan": 3, "slow": 3}


@dataclass
class Hands:
    """SIGKILL a worker, every fifth time a warden, `kills` times under load."""

    stage: Stage
    kills: int
    every_s: float = 0.4
    per_s: float = 8.0
    wardens: int = 0
    workers: int = 0

    def run(self) -> list[str]:
        stage, chance = self.stage, random.Random(self.stage.seed)
        stage.say(f"{self.kills} kills, {self.per_s:g} runs a second meanwhile")
        stage.start()
        load = Load(stage.urls, seed=stage.seed, count=10**6, per_s=self.per_s, shapes=SHAPES, threads=6)
        load.start()
        try:
            while self.wardens + self.workers < self.kills:
                time.sleep(self.every_s)
                self._kill(chance, chance.choice(stage.fleet))
            load.halt()
            stage.note(checks.invariants_of(stage.database))
            stage.settle(load)
        finally:
            load.abandon()
            stage.end()
        stage.say(f"{self.workers} workers and {self.wardens} wardens were killed")
        return stage.found

    def _kill(self, chance: random.Random, victim: Replica) -> None:
        is_warden = (self.wardens + self.workers) % 5 == 4
        if strike(chance, victim, is_warden=is_warden):
            self.wardens += is_warden
            self.workers += not is_warden


def strike(chance: random.Random, victim: Replica, *, is_warden: bool) -> bool:
    """SIGKILL a worker of a replica, or its warden; whether there was any."""
    assert victim.pid, "known from here on: its family leaves it out"
    workers = user_code(victim)
    candidates = sorted(victim.family() - workers if is_warden else workers)
    if not candidates:
        return False
    with suppress(ProcessLookupError):  # it may have ended by itself just now
        os.kill(chance.choice(candidates)[0], signal.SIGKILL)
        return True
    return False
