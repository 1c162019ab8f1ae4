"""The clocks of a simulation: the database's, which may be set; each host's, which is wrong; and steady time."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from unittest.mock import patch

from app import clock
from tests.simulation.cluster.loop import PROCESS, SimulatedLoop

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Clocks:
    """What time it is, and for whom."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop
        #: how far the database's clock has been set from the true time
        self.database_is_off = timedelta()

    def true(self) -> datetime:
        """The time that no clock shows for sure."""
        return START + timedelta(seconds=self._loop.time())

    def database(self) -> datetime:
        """What the database's clock shows."""
        return self.true() + self.database_is_off

    def now(self) -> datetime:
        """What `app.clock.now` says to whoever asks: a process goes on from what the database showed it last."""
        process = PROCESS.get()
        if process is None:
            return self.database()
        if process.anchor is None:
            return self.host()
        reference, at = process.anchor
        return reference + timedelta(seconds=self._loop.time() - at)  # type: ignore[no-any-return]

    def host(self) -> datetime:
        """The wall clock of the asker's host."""
        process = PROCESS.get()
        return self.true() + (timedelta() if process is None else process.host_is_off)

    @staticmethod
    def anchor(reference: datetime, at: float) -> None:
        """Let the asker's process go by what the database showed at `at`."""
        if (process := PROCESS.get()) is not None:
            process.anchor = reference, at


@contextmanager
def in_force(clocks: Clocks, loop: SimulatedLoop) -> Iterator[None]:
    """Let `app.clock`, the only one who asks the time, ask here."""
    with ExitStack() as stack:
        for name, instead in {
            "now": clocks.now,
            "monotonic": loop.time,
            "steady": loop.time,
            "anchor": clocks.anchor,
            "host_now": clocks.host,
        }.items():
            stack.enter_context(patch.object(clock, name, instead))
        yield
