"""Scenario: Postgres is restarted as after a crash, and answers to commits are lost, while runs come in."""

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.soak.load import Load
from tests.soak.proxy import Proxy, wire
from tests.soak.service import wait_for
from tests.soak.stage import Stage

SHAPES = {"chain": 5, "fan": 4, "slow": 1, "sensing": 1, "parent": 1}
#: whose answer is lost: a transaction's COMMIT, or a flush of a journal, which has the end of a block in it
LOSSES = (b"COMMIT", b"completed")
PATIENCE_S = 300


class Wire:
    """A proxy with a loop and a thread of its own, told what to do from here."""

    def __init__(self, proxy: Proxy, loop: asyncio.AbstractEventLoop) -> None:
        self._proxy, self._loop = proxy, loop
        self.url = proxy.url
        self.lost = 0

    def lose(self, to: bytes) -> None:
        """Lose the answer to the next message that holds these bytes."""

        def arm() -> None:
            self._proxy.swallowed.clear()
            self._proxy.swallow = to

        self._loop.call_soon_threadsafe(arm)

    def break_at(self, at: bytes) -> None:
        """Break the connection of the next message that holds these bytes; it never arrives."""
        self._loop.call_soon_threadsafe(setattr, self._proxy, "drop", at)

    @property
    def is_broken(self) -> bool:
        """Whether that has happened."""
        return self._proxy.dropped.is_set()

    def lose_one(self, chance: random.Random) -> None:
        """Lose the answer to one of LOSSES, if one comes within two seconds."""
        self.lose(chance.choice(LOSSES))
        for _ in range(100):
            time.sleep(0.02)
            if self.count():
                return

    def count(self) -> bool:
        """Whether the answer is lost by now."""
        if found := self._proxy.swallowed.is_set():
            self._proxy.swallowed.clear()
            self.lost += 1
        return found


@contextmanager
def wired(url: str) -> Iterator[Wire]:
    """A wire to the server of a DSN that can lose answers."""
    ready: list[Wire] = []
    loop, up, over = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with wire(url) as proxy:
            ready.append(Wire(proxy, loop))
            up.set()
            await over.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), name="proxy")
    thread.start()
    up.wait(10)
    try:
        yield ready[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(20)
        loop.close()


@dataclass
class Outage:
    """`restarts` of the server and `losses` of answers, spread over the load."""

    stage: Stage
    wire: Wire
    restart: Callable[[], None]
    restarts: int
    losses: int
    runs: int
    seconds: float

    def run(self) -> list[str]:
        stage = self.stage
        stage.say(
            f"{self.runs} runs in {self.seconds:g} s, {self.restarts} restarts of Postgres,"
            f" {self.losses} lost answers to commits"
        )
        stage.start()
        rate = self.runs / self.seconds
        load = Load(stage.urls, seed=stage.seed, count=10**6, per_s=rate, shapes=SHAPES, threads=8)
        load.start()
        try:
            self._disturb(random.Random(stage.seed))
            wait_for(lambda: len(load.acknowledged) >= self.runs, PATIENCE_S, "all runs are acknowledged")
            load.halt()
            stage.settle(load)
        finally:
            load.abandon()
            stage.end()
        stage.say(f"{self.wire.lost} answers were lost")
        return stage.found

    def _disturb(self, chance: random.Random) -> None:
        """Restart at even distances; in between lose answers, as many each time."""
        began, each = time.monotonic(), self.seconds / (self.restarts + 1)
        for number in range(self.restarts + 1):
            until = began + (number + 1) * each
            share = self.losses * (number + 1) // (self.restarts + 1)
            while time.monotonic() < until or self.wire.lost < share:
                if self.wire.lost < share:
                    self.wire.lose_one(chance)
                else:
                    time.sleep(0.05)
            if number < self.restarts:
                self.restart()
                self.stage.say(f"restart {number + 1}, {self.wire.lost} answers lost so far")
