"""Wake-ups between nodes: what one has done that another should look at now, not at its next poll.

Each is a hint. The polls of `engine.py` and `streams.py` stay behind: a lost hint costs a second, nothing more.
On SQLite there is one node, and nobody to tell.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from app import clock
from app.errors import RunNotFound, StoreUnavailable
from app.events import Bus, Elsewhere, Event
from app.models.states import RUN_TERMINAL
from app.scheduler.fleet import Fleet
from app.scheduler.intake import Intake
from app.scheduler.passes import Passes
from app.scheduler.triggers import Triggers
from app.store import runs

log = logging.getLogger(__name__)

#: Runs wait that a node with room could start: new ones, or a limit was raised.
ADMIT = "admit"
#: The cancel of a run that another node drives is on record.
CANCEL = "cancel"
#: A trigger was changed: the next due slot may be another.
TICK = "tick"
#: A node has let go of its runs.
RECOVER = "recover"
#: `run:7`: something of run 7 is new in the database. `follow:7`: somebody wants to be told.
RUN, FOLLOW = "run", "follow"
#: How often whoever waits for a run looks at it without being told.
LOOK_S = 1.0
#: Whoever follows a run says so again so often, and is told for so long.
FOLLOW_S, FOLLOWED_S = 1.0, 4.0
STOP_S = 1.0

Action = Callable[[], Awaitable[object]]


class Voice(Protocol):
    """What carries words to the other nodes: `app.store.signals.Signals`."""

    def say(self, *words: str) -> None:
        """Tell them soon."""
        ...

    def stop(self) -> None:
        """Say what waits, and end."""
        ...

    async def serve(self) -> None:
        """Listen and tell until :meth:`stop`."""
        ...


#: (called with what others say, called when something may have been missed) -> the voice; None where nobody is.
MakeVoice = Callable[[Callable[[list[str]], None], Callable[[], None]], Voice | None]


class Wakeups:
    """One node's wake-ups. `actions` are what it does about each kind."""

    def __init__(self, make: MakeVoice, bus: Bus, actions: Mapping[str, Action]) -> None:
        self._voice = make(self._hear, self._missed)
        self._bus, self._actions = bus, actions
        self._wanted: set[str] = set()
        self._wake = asyncio.Event()
        self._followed: dict[int, float] = {}  # until when others want to be told of a run
        self._asked: dict[int, float] = {}  # when we last asked to be told of one
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, group: asyncio.TaskGroup) -> None:
        """Begin; the tasks belong to the group, which :meth:`stop` lets go of."""
        self._tasks = [group.create_task(self._act(), name="woken")]
        if self._voice is not None:
            self._tasks.append(group.create_task(self._voice.serve(), name="wake-ups"))

    async def stop(self) -> None:
        """Tell that this node's runs are for others, and end."""
        if self._voice is not None:
            self._voice.say(RECOVER)
            self._voice.stop()
            await asyncio.wait(self._tasks[1:], timeout=STOP_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    def trigger_changed(self) -> None:
        """The next due slot may be another: look, here and elsewhere."""
        self.tell(TICK)
        if TICK in self._actions:
            self._want(TICK)

    def tell(self, kind: str) -> None:
        """Have the other nodes look, after the commit of what they will find."""
        if self._voice is not None:
            self._voice.say(kind)

    def follow(self, run_id: int) -> None:
        """Ask whichever node drives a run to tell of its changes; ask again while they are wanted."""
        now = clock.monotonic()
        if self._voice is None or now - self._asked.get(run_id, -FOLLOW_S) < FOLLOW_S:
            return
        self._asked = {run: at for run, at in self._asked.items() if now - at < FOLLOW_S} | {run_id: now}
        self._voice.say(f"{FOLLOW}:{run_id}")

    def _hear(self, words: list[str]) -> None:
        for word in words:
            kind, _, number = word.partition(":")
            if number.isdecimal():
                self._of_run(kind, int(number))
            elif kind in self._actions:
                self._want(kind)

    def _of_run(self, kind: str, run_id: int) -> None:
        if kind == RUN and self._bus.listened(run_id):
            self._bus.publish(Elsewhere(run_id=run_id))
        elif kind == FOLLOW:
            self._be_followed(run_id)

    def _be_followed(self, run_id: int) -> None:
        now = clock.monotonic()
        if run_id not in self._followed:
            self._say_run(run_id)  # perhaps it ended here while the wish was on its way
        self._followed[run_id] = now + FOLLOWED_S
        self._bus.relay(run_id, self._pass_on)
        for old in [run for run, until in self._followed.items() if until < now]:
            del self._followed[old]
            self._bus.relay(old, None)

    def _pass_on(self, event: Event) -> None:
        if isinstance(event, Elsewhere):
            return
        if self._followed.get(event.run_id, 0) < clock.monotonic():
            self._followed.pop(event.run_id, None)
            self._bus.relay(event.run_id, None)
        else:
            self._say_run(event.run_id)

    def _say_run(self, run_id: int) -> None:
        if self._voice is not None:
            self._voice.say(f"{RUN}:{run_id}")

    def _missed(self) -> None:
        """Deaf until now: look at everything once."""
        for kind in self._actions:
            self._want(kind)

    def _want(self, kind: str) -> None:
        self._wanted.add(kind)
        self._wake.set()

    async def _act(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            wanted, self._wanted = self._wanted, set()
            for kind in sorted(wanted):
                try:
                    await self._actions[kind]()
                except StoreUnavailable as error:
                    log.warning("%s: %s", kind, error)
                except Exception:  # a hint must not end the service; the poll does the same a second later
                    log.exception("woken for '%s', which failed", kind)


def wake_ups(
    make: MakeVoice, fleet: Fleet, intake: Intake, passes: Passes, triggers: Triggers, tick: Action | None
) -> Wakeups:
    """A node's wake-ups. One that does not tick runs only what is launched there: it is told of cancels alone."""

    async def look() -> None:
        intake.want_admission()

    actions: dict[str, Action] = {CANCEL: passes.stop_cancelled}
    if tick is not None:
        actions |= {ADMIT: look, TICK: tick, RECOVER: passes.recover}
    made = Wakeups(make, fleet.tools.bus, actions)
    intake.left = lambda: made.tell(ADMIT)
    triggers.changed = made.trigger_changed
    return made


async def until_over(wakeups: Wakeups, fleet: Fleet, run_id: int, timeout_s: float) -> bool:
    """Wait until a run is over, wherever it runs; False when the time is up first. Raises RunNotFound."""
    try:
        async with asyncio.timeout(timeout_s):
            with fleet.tools.bus.subscribe(run_id) as events:
                while True:
                    run = await fleet.db.read(runs.get, run_id)
                    if run is None:
                        raise RunNotFound(f"there is no pipeline run {run_id}")
                    if run.status in RUN_TERMINAL:
                        return True
                    if run.owner != fleet.node_id:
                        wakeups.follow(run_id)
                    await events.any(LOOK_S)
    except TimeoutError:
        return False
