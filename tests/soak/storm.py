"""Scenario: everything at once. Services kill themselves at named places, workers and wardens are killed, replicas
stand still for longer than their lease, Postgres crashes and answers of it are lost, while thousands of runs come in.

Each replica is started with a failpoint that kills it: in the middle of a launch, of an admission, of the end of a
block, … One that does not come to its place in its time is killed wherever it is. Workers that are killed cost their
block a try, and a block that starts a run starts one a try: `parent` is not among the pipelines.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from app.errors import StoreUnavailable
from tests.soak import checks, rows
from tests.soak.frozen import user_code
from tests.soak.hands import strike
from tests.soak.load import Load
from tests.soak.outage import Wire
from tests.soak.replica import Replica
from tests.soak.service import alive
from tests.soak.stage import Stage

T = TypeVar("T")
SHAPES = {"chain": 5, "fan": 4, "slow": 2, "sensing": 1, "endless": 1}
#: transaction or step -> how often a replica comes to it in a second, more or less
RATES = {
    **{"launch": 2.0, "admit": 2.0, "answer": 2.0, "start": 8.0, "finish": 8.0, "close": 2.0, "log": 4.0},
    **{"tick": 0.4, "wait": 0.5, "settle": 0.1, "cancel": 0.1, "ids": 0.05, "takeover": 0.05},
    **{"takeover_parked": 0.05, "fence": 0.05, "join": 0.0, "drain": 0.0, "hand_over": 0.0},
}
#: places that a replica comes to when it is told to stop
LAST = ("drain", "hand_over")
ANYWHERE = "wherever it was"
#: how a service that SIGKILL has ended is seen from outside its namespace, and from beside it
KILLED = (137, -9)
PATIENCE_S = 90.0


@dataclass
class Storm:
    """So many faults of each kind, spread over so many seconds; each goes on until it has had its number."""

    stage: Stage
    wire: Wire
    restart: Callable[[], None]
    seconds: float
    runs: int
    kills: int
    hands: int
    freezes: int
    restarts: int
    losses: int
    #: place -> how many services were killed there
    phases: Counter[str] = field(default_factory=Counter)
    #: what else was done
    done: Counter[str] = field(default_factory=Counter)
    #: how services ended that nobody had killed
    ended: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._locks = {replica.name: threading.Lock() for replica in self.stage.fleet}
        self._places = [f"{name}.{when}" for name in RATES for when in ("before_commit", "after_commit")]
        random.Random(self.stage.seed).shuffle(self._places)
        self._lock = threading.Lock()
        self._next = 0

    def run(self) -> list[str]:
        """Everything that was wrong."""
        stage = self.stage
        stage.say(
            f"{self.runs} runs and those of three triggers in {self.seconds:g} s, lease {stage.lease_s:g} s"
        )
        stage.start()
        rate = self.runs / self.seconds
        load = Load(stage.urls, seed=stage.seed, count=self.runs, per_s=rate, shapes=SHAPES, threads=8)
        load.start()
        try:
            self._play()
            stage.settle(load)
        finally:
            load.abandon()
            for replica in stage.fleet:
                replica.thaw()
            stage.end()
        self._tell()
        return stage.found

    def _play(self) -> None:
        """All faults, each kind on a thread of its own."""
        acts: list[Callable[[], None]] = [self._strike, self._freeze, self._restart, self._lose, self._check]
        acts += [lambda replica=replica: self._live(replica) for replica in self.stage.fleet]  # type: ignore[misc]
        threads = [threading.Thread(target=self._guarded, args=(act,)) for act in acts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # the others go on, and this is told
            self.stage.note([f"the soak itself: {type(error).__name__}: {error}"])

    def _paced(self, what: str, number: int) -> Iterator[random.Random]:
        """`number` times at even distances; one that was not done is done at once again, for so long."""
        chance = random.Random(f"{self.stage.seed}.{what}")
        began = time.monotonic()
        while self.done[what] < number and time.monotonic() < began + 2 * self.seconds + PATIENCE_S:
            due = began + (self.done[what] + chance.random()) * self.seconds / number
            time.sleep(max(0.05, due - time.monotonic()))
            yield chance
        self.stage.note([f"only {self.done[what]} {what}"] if self.done[what] < number else [])

    # The lives of a replica.

    def _live(self, replica: Replica) -> None:
        """One life after another until enough have been killed; at last one without an end."""
        chance = random.Random(f"{self.stage.seed}.{replica.name}")
        life_s = 0.75 * self.seconds * len(self.stage.fleet) / self.kills
        place = ANYWHERE
        while self.phases.total() < self.kills:
            self._end(replica, place, chance, life_s)
            place = self._next_place()
            times = chance.randint(1, max(1, round(RATES[place.partition(".")[0]] * life_s / 2)))
            self._begin(replica, f"{place}=kill@{times}")
        if replica.settings.get("RUNWRIGHT_FAILPOINTS"):
            self._end(replica, place, chance, life_s)
            self._begin(replica, "")

    def _next_place(self) -> str:
        with self._lock:
            self._next += 1
            return self._places[self._next % len(self._places)]

    def _begin(self, replica: Replica, rules: str) -> None:
        replica.settings = {**replica.settings, "RUNWRIGHT_TESTING": "true", "RUNWRIGHT_FAILPOINTS": rules}
        with self._locks[replica.name]:
            replica.start()
        while replica.process is not None and replica.process.poll() is None and not replica.is_ready():
            time.sleep(0.05)

    def _end(self, replica: Replica, place: str, chance: random.Random, life_s: float) -> None:
        """Let a life go on until it ends, and end it when its time has come."""
        until = time.monotonic() + life_s * chance.uniform(0.7, 1.3)
        assert replica.process is not None
        while replica.process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        with self._locks[replica.name]:  # not while it stands still
            family = replica.family()
            if replica.process.poll() is None and place.startswith(LAST):
                replica.terminate()
            if (code := replica.process.poll()) is None:
                replica.kill()
                place = ANYWHERE
        if code in (None, *KILLED):
            self.phases[place] += 1
        else:
            self.ended[code] += 1
        time.sleep(0.2)  # its namespace ends with it, in a moment
        if left := alive(family):
            self.stage.note([f"outlived {replica.name}, killed at {place}: {left}"])

    # What else is done to them.

    @contextmanager
    def _held(self, chance: random.Random) -> Iterator[Replica | None]:
        """A replica that serves, for as long as the context lasts; None when the chosen one does not."""
        replica = chance.choice(self.stage.fleet)
        with self._locks[replica.name]:
            there = replica.process is not None and replica.process.poll() is None and replica.is_ready()
            yield replica if there else None

    def _strike(self) -> None:
        for chance in self._paced("workers and wardens killed", self.hands):
            with self._held(chance) as victim:
                is_warden = self.done["wardens"] * 5 < self.done["workers and wardens killed"]
                if victim is not None and strike(chance, victim, is_warden=is_warden):
                    self.done["workers and wardens killed"] += 1
                    self.done["wardens"] += is_warden

    def _freeze(self) -> None:
        for chance in self._paced("freezes", self.freezes):
            with self._held(chance) as victim:
                node = victim and self._look(lambda tx, victim=victim: rows.node_of(tx, victim.where))  # type: ignore[misc]
                if victim is not None and node:
                    self._stand_still(victim, node)

    def _stand_still(self, victim: Replica, node: str) -> None:
        """SIGSTOP until the others have fenced it and its lease has passed, then SIGCONT."""
        code, stopped = user_code(victim), time.monotonic()
        victim.freeze()
        try:
            while self._look(lambda tx: rows.state_of(tx, node)) != "fenced":
                if time.monotonic() > stopped + PATIENCE_S:
                    self.stage.note([f"{victim.name} is not fenced after {PATIENCE_S:g} s"])
                    return
                time.sleep(0.1)
            if left := alive(code):
                self.stage.note([f"user code of {victim.name} outlived its lease: {left}"])
            time.sleep(max(0.0, stopped + self.stage.lease_s + 0.5 - time.monotonic()))
            self.done["freezes"] += 1
        finally:
            victim.thaw()

    def _restart(self) -> None:
        for _ in self._paced("restarts of Postgres", self.restarts):
            self.restart()
            self.done["restarts of Postgres"] += 1

    def _lose(self) -> None:
        for chance in self._paced("answers lost", self.losses):
            self.wire.lose_one(chance)
            self.done["answers lost"] = self.wire.lost

    def _check(self) -> None:
        for _ in self._paced("looks at all invariants", max(2, round(self.seconds / 60))):
            self.stage.note(self._look(lambda tx: checks.invariants.find(tx)))
            self.done["looks at all invariants"] += 1

    def _look(self, fn: Callable[[Connection], T]) -> T:
        """Read the database as soon as it is there."""
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                return checks.look(self.stage.database, fn)
            except (StoreUnavailable, SQLAlchemyError, OSError):
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)

    def _tell(self) -> None:
        stage = self.stage
        stage.say(f"{self.phases.total()} services were killed, in {len(self.phases)} phases:")
        for place, count in sorted(self.phases.items()):
            stage.say(f"    {place}: {count}")
        stage.say(", ".join(f"{count} {what}" for what, count in self.done.items()))
        stage.say(f"services that ended by themselves, by exit code: {dict(self.ended)}")
