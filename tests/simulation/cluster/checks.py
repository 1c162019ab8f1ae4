"""What must hold in a simulation: of the rows, of what ran, of what was told, and of what was promised."""

import asyncio
from collections.abc import Callable
from typing import Any

from app.events import BlockEnded, BlockStarted, Event, RunCreated, RunEnded, RunStarted
from app.executors.base import BlockResult
from app.models.states import RUN_TERMINAL, Outcome
from tests.invariants import find
from tests.simulation.cluster.bench import Attempt
from tests.simulation.cluster.server import Store

_EXISTS = "SELECT 1 FROM pipeline_run WHERE id=:run"
_CLAIM: dict[type[Event], str] = {
    RunCreated: _EXISTS,
    RunStarted: _EXISTS + " AND started_at IS NOT NULL",
    RunEnded: _EXISTS + " AND completed_at IS NOT NULL",
}
_ATTEMPT = (
    "SELECT 1 FROM block_attempt a JOIN block_run b ON b.id=a.block_run_id"
    " WHERE b.pipeline_run_id=:run AND b.block_uuid=:block AND a.attempt=:attempt"
)


class Checks:
    """Keeps the books of one simulation. The first thing that is wrong ends it: `fail` says what."""

    def __init__(
        self, store: Store, loop: Any, note: Callable[[str], None], fail: Callable[[str], None]
    ) -> None:
        self._store, self._loop, self._note, self._fail = store, loop, note, fail
        self._running: dict[int, tuple[Attempt, Any]] = {}
        self._done: set[tuple[int, int]] = set()
        #: what clients were promised: the key of a request -> the run that it has made
        self.promised: dict[str, int] = {}
        #: runs that a client waits for now, with the client
        self.waited: dict[str, int] = {}
        self.executions = self.events = self.looks = 0

    def _one(self, query: str, **values: Any) -> bool:
        return bool(self._store.ask(query, **values))

    def began(self, attempt: Attempt, process: Any) -> None:
        """User code starts: its start is on disk, and it is alone."""
        call = attempt.call
        self._note(f"{process}: {attempt.name} begins")
        self.executions += 1
        if other := self._running.get(call.block_run_id):
            self._fail(f"{attempt.name} begins on {process} while {other[0].name} still runs on {other[1]}")
        self._running[call.block_run_id] = (attempt, process)
        query = "SELECT 1 FROM block_attempt WHERE block_run_id=:block AND attempt=:attempt"
        if not self._one(query, block=call.block_run_id, attempt=call.attempt):
            self._fail(f"{attempt.name} begins on {process}, and its start is not on disk")

    def ended(self, attempt: Attempt, result: BlockResult, process: Any) -> None:
        """User code is over."""
        call = attempt.call
        self._note(f"{process}: {attempt.name} ends: {result.outcome}{', not yet' * result.value_false}")
        if self._running.get(call.block_run_id, (None,))[0] is attempt:
            del self._running[call.block_run_id]
        if result.outcome is Outcome.COMPLETED:
            self._done.add((call.block_run_id, call.attempt))

    def told(self, event: Event, process: Any) -> None:
        """An event goes out: what it tells of is on disk."""
        self.events += 1
        true = True
        if (query := _CLAIM.get(type(event))) is not None:
            true = self._one(query, run=event.run_id)
        elif isinstance(event, BlockStarted):
            true = self._one(_ATTEMPT, run=event.run_id, block=event.block_uuid, attempt=event.attempt)
        elif isinstance(event, BlockEnded) and event.attempt and event.status != "running":
            query = _ATTEMPT + " AND a.ended_at IS NOT NULL"
            true = self._one(query, run=event.run_id, block=event.block_uuid, attempt=event.attempt)
        if not true:
            self._fail(f"{process} tells of what is not on disk: {event}")

    def promise(self, key: str, run_id: int) -> None:
        """A client has its answer; the same key never gets another."""
        if (before := self.promised.setdefault(key, run_id)) != run_id:
            self._fail(f"request {key} was answered with run {before}, and now with run {run_id}")

    def look(self) -> None:
        """The invariants hold."""
        self.looks += 1
        if found := self._store.run(find):
            self._fail("invariants are violated:\n  " + "\n  ".join(found))

    def live_runs(self) -> list[Any]:
        """Runs that are not over."""
        query = "SELECT id, pipeline_uuid, status, owner, status_detail FROM pipeline_run WHERE completed_at IS NULL"
        return self._store.ask(query)

    def at_the_end(self) -> None:
        """All is over, what was promised is there, and what completed has run."""
        if live := self.live_runs():
            self._fail(f"{len(live)} runs never end: {live[:5]}")
        if self.waited:
            self._fail(f"clients still wait for runs that are over: {self.waited}")
        if self._running:
            self._fail(f"user code outlives everything: {[a.name for a, _ in self._running.values()]}")
        self.look()
        known = dict(self._store.ask("SELECT id, status FROM pipeline_run"))
        for key, run_id in self.promised.items():
            if known.get(run_id) not in RUN_TERMINAL:
                self._fail(f"request {key} was acknowledged as run {run_id}: {known.get(run_id)}")
        done = "SELECT block_run_id, attempt FROM block_attempt WHERE outcome='completed'"
        for row in self._store.ask(done):
            if row not in self._done:
                self._fail(f"attempt {row} is completed, and never ran to its end")
        self._no_faults_of_ours()

    def _no_faults_of_ours(self) -> None:
        faults = "SELECT id, status_reason FROM pipeline_run WHERE status_reason='internal_error'"
        broken = "SELECT id, error FROM pipeline_schedule WHERE error IS NOT NULL"
        for query in (faults, broken):
            if found := self._store.ask(query):
                self._fail(f"the engine failed on something: {found[:5]}")

    def tasks_left(self) -> None:
        """Whoever has ended has ended whole."""
        left = [task for task in self._loop.tasks if task is not asyncio.current_task() and not task.done()]
        if left:
            self._fail(f"{len(left)} tasks are left: {left[:3]}")
