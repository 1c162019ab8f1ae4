"""Named places at which a test kills, fails or delays the service. Off in production, where nothing looks at them.

`RUNWRIGHT_FAILPOINTS="launch.after_commit=kill@3; tick.before_commit=error"`: at the third launch that is on disk
the process ends by SIGKILL, the first tick fails before it is. A place is met at its first time, at its third
(`@3`), or from then on (`@3+`). What happens: `kill`; `error`: the database went away; `pause(1.5)`: seconds that go
by there while everything else goes on; `stall(15)`: seconds for which the main loop stands still.

A transaction has two places. `before_commit` is in it, behind its statements: an error there undoes it.
`after_commit` is behind it, before anybody is told: it is on disk, and an error leaves its caller in doubt.
"""

import asyncio
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

Mode = Literal["kill", "error", "pause", "stall"]

#: a store function that is a transaction, as `module.function` -> what its places are called
TRANSACTIONS: Final = {
    "launch.launch": "launch",
    "admit.admit": "admit",
    "tick.decide": "tick",
    "applying.write": "sync",
    "ownership.cancel": "cancel",
    "ownership.takeover": "takeover",
    "ownership.take_over_parked": "takeover_parked",
    "ownership.retake": "retake",
    "ownership.abort": "abort",
    "ids.take_block": "ids",
    "idempotency.remember": "answer",
    "nodes.fence": "fence",
    "nodes.register": "join",
    "nodes.drain": "drain",
    "nodes.hand_over": "hand_over",
}
#: what a flush of the journal carries; it has places for each of them that is in it
STEPS: Final = ("start", "finish", "hook", "settle", "plan", "wait", "close", "log")
#: places outside of any transaction
OTHERS: Final = ("attempt.result_received", "loop")
MOMENTS: Final = ("before_commit", "after_commit")
PLACES: Final = frozenset(
    [f"{name}.{moment}" for name in (*TRANSACTIONS.values(), *STEPS) for moment in MOMENTS] + list(OTHERS)
)
_RULE = re.compile(
    r"(?P<place>[a-z_.]+)=(?P<mode>kill|error|pause|stall)(\((?P<seconds>\d+(\.\d+)?)\))?"
    r"(@(?P<nth>[1-9]\d{0,6})(?P<on>\+)?)?"
)


class FailpointError(Exception):
    """What a place outside of any transaction fails with."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens at a place, when it is met for the `nth` time or, with `on`, from then on."""

    place: str
    mode: Mode
    seconds: float = 0.0
    nth: int = 1
    on: bool = False

    def applies(self, time: int) -> bool:
        """Whether this is the time.

        >>> [time for time in range(1, 6) if Rule("loop", "kill", nth=3, on=True).applies(time)]
        [3, 4, 5]
        """
        return time >= self.nth if self.on else time == self.nth


def parse(text: str) -> tuple[Rule, ...]:
    """The rules of a text; see above. Raises ValueError, which names the fault and the places that there are.

    >>> parse("loop=stall(15)@2")
    (Rule(place='loop', mode='stall', seconds=15.0, nth=2, on=False),)
    """
    return tuple(_rule(part.strip()) for part in re.split(r"[;,]", text) if part.strip())


def _rule(text: str) -> Rule:
    found = _RULE.fullmatch(text)
    if found is None:
        raise ValueError(f"'{text}' is no failpoint: write place=kill|error|pause(s)|stall(s), and @3 or @3+")
    place, mode = found["place"], found["mode"]
    if place not in PLACES:
        raise ValueError(f"there is no failpoint '{place}'; there are: {', '.join(sorted(PLACES))}")
    if (found["seconds"] is not None) != (mode in ("pause", "stall")):
        raise ValueError(f"'{text}': pause and stall need seconds, as in pause(1.5), the others have none")
    if mode == "error" and place.partition(".")[0] in STEPS and place.endswith("after_commit"):
        raise ValueError(f"'{text}': the journal is never in doubt, it asks the database")
    seconds = float(found["seconds"] or 0)
    return Rule(place, mode, seconds, int(found["nth"] or 1), found["on"] is not None)  # type: ignore[arg-type]


def _sigkill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Failpoints:
    """Rules that are in force, with what has been met of them. `kill` may be another's, for a death in a test."""

    def __init__(self, rules: tuple[Rule, ...], kill: Callable[[], None] = _sigkill) -> None:
        self._rules, self._kill = rules, kill
        self._lock = threading.Lock()
        self.met: Counter[str] = Counter()
        #: places at which something was done, in order
        self.struck: list[str] = []
        #: set by a death that leaves the process alive: nothing goes on at any place from here on
        self.dead = False

    def at(self, place: str) -> Rule | None:
        """Note that a place is met; what is to happen there."""
        with self._lock:
            self.met[place] += 1
            rule = next((r for r in self._rules if r.place == place and r.applies(self.met[place])), None)
            if rule is not None:
                self.struck.append(place)
            return rule

    def hit(self, place: str, error: Callable[[str], Exception] = FailpointError) -> None:
        """Do what is to happen at a place within a transaction; for any thread."""
        rule = self.at(place)
        if rule is None:
            return
        if rule.mode == "kill":
            self.die()
        if rule.mode in ("kill", "error"):
            raise error(f"failpoint {place}")
        time.sleep(rule.seconds)  # its transaction stays open meanwhile

    async def reach(self, place: str, error: Callable[[str], Exception] = FailpointError) -> None:
        """Do what is to happen at a place on the main loop."""
        rule = None if self.dead else self.at(place)
        if rule is not None and rule.mode == "kill":
            self.die()
        if self.dead:
            await asyncio.Future()
        if rule is None:
            return
        if rule.mode == "error":
            raise error(f"failpoint {place}")
        if rule.mode == "pause":
            await asyncio.sleep(rule.seconds)
        else:
            time.sleep(rule.seconds)  # noqa: ASYNC251 (the loop is meant to stand still)

    def die(self) -> None:
        """End this process; where a test stands in for that, nothing goes on here."""
        self.dead = True
        self._kill()


#: All that a place looks at while nothing is armed.
armed: Failpoints | None = None


def arm(text: str, kill: Callable[[], None] = _sigkill) -> Failpoints:
    """Put rules in force, for every database that is opened from here on. Raises ValueError."""
    global armed
    armed = Failpoints(parse(text), kill)
    return armed
