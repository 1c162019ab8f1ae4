"""Scenario: a replica stands still for longer than its lease, then goes on: it must not change or do anything."""

import random
import time
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Connection

from tests.soak import checks, rows
from tests.soak.load import Load
from tests.soak.replica import Replica
from tests.soak.service import Process, alive, wait_for
from tests.soak.stage import Stage, spread

SHAPES = {"chain": 4, "fan": 3, "slow": 4, "parent": 1}
#: within its lease and this a frozen replica is fenced; within this a thawed one serves again. Where times are
#: not judged they only end a wait that would be for ever.
FENCED_S, BACK_S, PATIENCE_S = 10.0, 40.0, 120.0


@dataclass
class Freezes:
    """SIGSTOP, wait until others have fenced it, SIGCONT; `times` times under load."""

    stage: Stage
    times: int
    per_s: float = 8.0
    #: seconds from the stop until nothing of its user code lived
    gone_s: list[float] = field(default_factory=list)
    #: … until it was fenced, and from the thaw until it served under a new identity
    fenced_s: list[float] = field(default_factory=list)
    back_s: list[float] = field(default_factory=list)
    restarts: int = 0

    def run(self) -> list[str]:
        stage = self.stage
        stage.say(f"{self.times} freezes, lease {stage.lease_s:g} s, {self.per_s:g} runs a second meanwhile")
        stage.start()
        load = Load(stage.urls, seed=stage.seed, count=10**6, per_s=self.per_s, shapes=SHAPES, threads=6)
        load.start()
        chance = random.Random(stage.seed)
        try:
            for number in range(1, self.times + 1):
                self._freeze(number, chance.choice(stage.fleet))
            load.halt()
            stage.settle(load)
        finally:
            load.abandon()
            for replica in stage.fleet:
                replica.thaw()
            stage.end()
        stage.say(
            f"from the stop until no user code was left: {spread(self.gone_s)}; fenced: {spread(self.fenced_s)}"
        )
        stage.say(f"from the thaw until it served again: {spread(self.back_s)}; {self.restarts} had ended")
        return stage.found

    @property
    def _patience_s(self) -> float:
        return self.stage.lease_s + FENCED_S if self.stage.timed else PATIENCE_S

    def _freeze(self, number: int, victim: Replica) -> None:
        stage = self.stage
        victim.wait_ready(60)
        node = self._busy_node(victim)
        code = user_code(victim)
        victim.freeze()
        stopped = time.monotonic()
        fenced = self._watch(victim, node, code, stopped)
        stage.note([] if fenced else [f"not fenced after {self._patience_s:g} s"], f"freeze {number}: ")
        stage.note(checks.invariants_of(stage.database), f"freeze {number}: ")
        victim.thaw()
        self._comes_back(number, victim, node)
        stage.say(f"freeze {number}: {victim.name}, {len(code)} processes of user code")

    def _busy_node(self, victim: Replica) -> str:
        """Its present identity, once it runs a block: on a slow machine it may lose its lease by itself."""
        found: list[str] = []

        def busy(tx: Connection) -> bool:
            node = rows.node_of(tx, victim.where)
            found[:] = [node] if node and rows.busy(tx, node) else []
            return bool(found)

        wait_for(lambda: checks.look(self.stage.database, busy), 60, f"{victim.name} runs a block")
        return found[0]

    def _watch(self, victim: Replica, node: str, code: set[Process], stopped: float) -> bool:
        """Until both its user code is gone and its node is fenced; whether that came in time."""
        stage = self.stage
        gone = fenced = None
        while (gone is None or fenced is None) and time.monotonic() < stopped + self._patience_s:
            if gone is None and not alive(code):
                gone = time.monotonic() - stopped
            if fenced is None and checks.look(stage.database, lambda tx: rows.state_of(tx, node)) == "fenced":
                fenced = time.monotonic() - stopped
                # From here on others run its blocks.
                stage.note([f"user code outlived the lease: {left}" for left in [user_code(victim)] if left])
        self.gone_s += [gone] if gone is not None else []
        self.fenced_s += [fenced] if fenced is not None else []
        return fenced is not None

    def _comes_back(self, number: int, victim: Replica, before: str) -> None:
        """It serves again under another identity. A process that has ended instead is counted, and started."""
        stage, thawed = self.stage, time.monotonic()

        def back() -> bool:
            assert victim.process is not None
            if victim.process.poll() is not None:
                self.restarts += 1
                stage.note([f"{victim.name} ended with {victim.process.returncode}"], f"freeze {number}: ")
                victim.start()
            now = checks.look(stage.database, lambda tx: rows.node_of(tx, victim.where))
            return now not in (None, before) and victim.is_ready()

        wait_for(back, BACK_S if stage.timed else PATIENCE_S, f"{victim.name} serves under a new identity")
        self.back_s.append(time.monotonic() - thawed)


def user_code(replica: Replica) -> set[Process]:
    """Its workers and all that they started: everything of it but itself and its warden."""
    return {process for process in replica.family() if b"warden.py" not in _command(process[0])}


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
