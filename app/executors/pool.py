"""Worker processes, given out one slot at a time: warm where possible, started where needed, bounded."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog

from app import clock
from app.executors.base import BlockCall, BlockError, BlockResult, OnAsk
from app.executors.output import Sink
from app.executors.permits import Permits
from app.executors.wardenlink import WardenLink
from app.executors.worker import Kill, Worker
from app.models.states import Outcome

log = structlog.get_logger(__name__)

#: attempts that one worker runs before it is replaced
USES = 100
#: how many attempts before its last one a worker's successor is started
_AHEAD = 10
_IDLE_S = 300.0
_TEND_S = 30.0
#: grace of blocks that still run when the pool stops; waiting for them is the engine's affair
_STOP_GRACE_S = 1.0
_STOP_TIMEOUT_S = 15.0


class InterpreterUnavailable(Exception):
    """No worker can be started with this interpreter; the message says why."""


class NoWorker(InterpreterUnavailable):
    """The warden went away while a worker was being started: another try will do."""


class WorkerPool:
    """The executor for user code: killable processes under a warden.

    `workers` is the number of slots and of processes (less those that are ending), `warm` how many are kept ready
    for the default interpreter. `sweep` names dead nodes of this host: what they left running is killed first.
    `silence_s` seconds without a word from the service, and the warden takes it for dead. `memory` is the address
    space of each process at most, in bytes.
    """

    def __init__(
        self,
        *,
        node_id: str,
        project: Path,
        workers: int,
        warm: int,
        python: str | None = None,
        kill_grace_s: float = 5.0,
        silence_s: float = 5.0,
        memory: int | None = None,
        sweep: Sequence[str] = (),
    ) -> None:
        self._node_id, self._sweep, self._silence_s = node_id, sweep, silence_s
        self._memory = memory
        self._project = project.resolve()
        self._python = python or sys.executable
        self._limit = workers
        self._warm = min(warm, workers)
        self.kill_grace_s = kill_grace_s
        self._permits = Permits(workers)
        #: places of processes that wait for an answer and let others run
        self._lent = 0
        self._workers: set[Worker] = set()
        #: ready and free, the one used last at the end
        self._idle: list[Worker] = []
        #: being started, claimed by nobody
        self._spare: list[Worker] = []
        self._warden: WardenLink | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._emptied = asyncio.Event()
        self._stopping = self._is_cut = False

    @property
    def warden_pid(self) -> int | None:
        """Process id of the warden, None before the start."""
        return self._warden.pid if self._warden is not None else None

    async def start(self) -> None:
        """Start the warden, sweep, warm up. An interpreter that does not start is a warning here, no error."""
        self._warden = WardenLink(self._node_id, self._sweep, silence_s=self._silence_s, memory=self._memory)
        await self._warden.start()
        self._top_up()
        for fault in await asyncio.gather(*(worker.ready for worker in self._spare)):
            if fault:
                log.warning("no warm worker", reason=fault)
        self._timer = asyncio.get_running_loop().call_later(_TEND_S, self._tend)

    def cut(self) -> None:
        """Have the warden SIGKILL everything this instant; from any thread, whatever the loop is doing."""
        self._stopping = self._is_cut = True
        if self._warden is not None:
            self._warden.cut()

    async def stop(self) -> None:
        """End every process; attempts still in flight end as LOST."""
        self._stopping = True
        if self._warden is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        if not self._is_cut:
            await self._end_workers()
        async with asyncio.timeout(_STOP_TIMEOUT_S):
            await self._warden.stop()

    async def _end_workers(self) -> None:
        kill = Kill(Outcome.LOST, "the service is stopping")
        grace_s = min(self.kill_grace_s, _STOP_GRACE_S)
        await asyncio.gather(*(worker.kill(kill, grace_s) for worker in self._workers if worker.busy))
        for worker in list(self._workers):
            worker.retire()
        if self._workers:
            try:
                async with asyncio.timeout(_STOP_GRACE_S):
                    await self._emptied.wait()
            except TimeoutError:
                log.info("workers did not end by themselves and are killed", workers=len(self._workers))

    async def acquire(self, python: str | None = None) -> "WorkerSlot":
        """A slot with a ready worker; first come, first served. One without if the interpreter does not start."""
        await self._permits.take()
        slot = WorkerSlot(self, python or self._python)
        try:
            await slot.prepare()
        except BaseException:
            self._permits.give()
            raise
        return slot

    def acquire_now(self, python: str | None = None) -> "WorkerSlot | None":
        """A slot with a worker that is idle this instant, else None."""
        python = python or self._python
        if not any(w.python == python and w.is_there for w in self._idle) or not self._permits.take_now():
            return None
        return WorkerSlot(self, python, self.claim(python))

    def claim(self, python: str) -> Worker:
        """A worker for this interpreter: idle, or being started already, or started now."""
        for pool in (self._idle, self._spare):
            for worker in reversed(pool):
                if worker.python == python and worker.is_there:
                    pool.remove(worker)
                    return worker
        return self._spawn(python)

    def give_back(self, worker: Worker) -> None:
        """Take a claimed worker back: idle if it is ready and fit, watched if it is still starting."""
        if not worker.usable:
            return
        if not worker.ready.done():
            self._spare.append(worker)
        elif worker.uses >= USES or self._stopping or self._count() > self._limit:
            worker.retire()
        else:
            worker.idle_since = clock.monotonic()
            self._idle.append(worker)

    def lend_place(self) -> None:
        """One more process may run beside the one that only waits."""
        self._lent += 1
        self._permits.give()

    async def reclaim_place(self) -> None:
        """Take the place of a waiting process back, after those who came before."""
        await self._permits.take()
        self._lent -= 1

    def end_slot(self, worker: Worker | None, *, lent: bool = False) -> None:
        """A slot is over: its worker and its place are free again."""
        if worker is not None:
            self.give_back(worker)
        if lent:
            self._lent -= 1
        else:
            self._permits.give()
        self._top_up()

    def replace(self, python: str) -> None:
        """Start a worker in place of one that is being killed, if there is room."""
        if not self._stopping and self._count() < self._limit:
            self._spare.append(self._spawn(python))

    def _spawn(self, python: str) -> Worker:
        assert self._warden is not None, "the pool has not been started"
        if self._count() >= self._limit:
            # Full: an idle worker of another interpreter, the longest unused, makes room.
            for idle in self._idle[:1]:
                self._idle.remove(idle)
                idle.retire()
        worker = Worker(self._warden, python, self._project, self._on_ready, self._on_gone)
        self._workers.add(worker)
        self._emptied.clear()
        return worker

    def _count(self) -> int:
        """Processes that take a place."""
        return sum(worker.usable for worker in self._workers) - self._lent

    def _top_up(self) -> None:
        """Keep `warm` workers of the default interpreter."""
        present = sum(worker.usable and worker.python == self._python for worker in self._workers)
        for _ in range(min(self._warm - present, self._limit - self._count())):
            self.replace(self._python)

    def _on_ready(self, worker: Worker) -> None:
        if worker in self._spare:
            self._spare.remove(worker)
            self.give_back(worker)

    def _on_gone(self, worker: Worker) -> None:
        self._workers.discard(worker)
        for pool in (self._idle, self._spare):
            if worker in pool:
                pool.remove(worker)
        if not self._workers:
            self._emptied.set()
        if worker.innocent and not self._stopping:
            # Not for one that never worked: an interpreter that cannot start must not be started in a loop.
            self._top_up()

    def _tend(self) -> None:
        """Retire what has been idle for long, down to the warm ones."""
        self._timer = asyncio.get_running_loop().call_later(_TEND_S, self._tend)
        before = clock.monotonic() - _IDLE_S
        for worker in [idle for idle in self._idle if idle.idle_since < before]:
            default = sum(other.usable and other.python == self._python for other in self._workers)
            if worker.python != self._python or default > self._warm:
                self._idle.remove(worker)
                worker.retire()


class WorkerSlot:
    """One place in the pool, held along a chain of blocks; its worker is replaced when need be."""

    def __init__(self, pool: WorkerPool, python: str, worker: Worker | None = None) -> None:
        self._pool = pool
        self._python = python
        self._worker = worker
        self._fault: InterpreterUnavailable | None = None
        self._kill: Kill | None = None
        #: set while `run` waits for a worker to start, so that a kill need not wait for it
        self._interrupt: asyncio.Future[None] | None = None
        self._running = False
        self._over = asyncio.Event()
        self._lent = False

    async def prepare(self) -> None:
        """Have a ready worker, or know why there is none."""
        try:
            self._worker = await self._ready_worker()
        except InterpreterUnavailable as error:
            self._fault = error

    async def run(self, call: BlockCall, on_line: Sink, on_ask: OnAsk | None = None) -> BlockResult:
        """Run one attempt; see `Slot.run`."""
        self._kill, self._running = None, True
        self._over.clear()
        try:
            return await self._run(call, on_line, on_ask)
        finally:
            self._running = False
            self._over.set()

    async def kill(self, outcome: Outcome, reason: str) -> None:
        """Stop the attempt in flight; see `Slot.kill`."""
        kill = self._kill = self._kill or Kill(outcome, reason)
        worker = self._worker
        if worker is not None and worker.busy:
            stopped = worker.kill(kill, self._pool.kill_grace_s)
            self._pool.replace(self._python)
            await stopped
        elif self._running:
            if self._interrupt is not None and not self._interrupt.done():
                self._interrupt.set_result(None)
            await self._over.wait()

    def lend(self) -> None:
        """See `Slot.lend`: the process stays and waits, its place is another's meanwhile."""
        if not self._lent:
            self._lent = True
            self._pool.lend_place()

    async def reclaim(self) -> None:
        """See `Slot.reclaim`."""
        if self._lent:
            await self._pool.reclaim_place()
            self._lent = False

    def release(self) -> None:
        """Give the place back; an attempt that nobody waits for any more is ended."""
        worker, self._worker = self._worker, None
        if worker is not None and worker.busy:
            worker.abandon()
            worker = None
        self._pool.end_slot(worker, lent=self._lent)

    async def _run(self, call: BlockCall, on_line: Sink, on_ask: OnAsk | None) -> BlockResult:
        while True:
            try:
                fault, self._fault = self._fault, None
                if fault is not None:
                    raise fault
                worker = await self._ready_worker()
            except NoWorker as error:
                return BlockResult(Outcome.LOST, error=BlockError("WorkerLost", str(error)))
            except InterpreterUnavailable as error:
                return BlockResult(Outcome.FAILED, error=BlockError("InterpreterUnavailable", str(error)))
            if worker is None or self._kill is not None:
                self._worker = worker
                assert self._kill is not None
                return BlockResult(self._kill.outcome, evidence=self._kill.evidence(None))
            self._worker = worker
            if worker.uses == USES - _AHEAD:
                self._pool.replace(self._python)
            result = await worker.run(call, on_line, on_ask)
            if result is not None:
                return result

    async def _ready_worker(self) -> Worker | None:
        """The slot's worker if it is fit for one more attempt, else another one; None if interrupted."""
        worker, self._worker = self._worker, None
        if worker is not None and worker.usable and worker.uses < USES:
            return worker
        if worker is not None:
            self._pool.give_back(worker)
        worker = self._pool.claim(self._python)
        self._interrupt = asyncio.get_running_loop().create_future()
        try:
            await asyncio.wait((worker.ready, self._interrupt), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._pool.give_back(worker)
            raise
        finally:
            self._interrupt = None
        if not worker.ready.done():
            self._pool.give_back(worker)
            return None
        if fault := worker.ready.result():
            raise NoWorker(fault) if worker.is_lost else InterpreterUnavailable(fault)
        return worker
