"""An event loop whose time passes only when nothing else can happen, with processes that can be stopped in it.

Everything that a simulated process does carries that process in its context (`PROCESS`). A process that is paused,
as by SIGSTOP, has its turns put aside; they are taken when it goes on. The same seed gives the same turns: tasks
hash by their number, so that a set of them has an order which no address decides.
"""

import asyncio
import heapq
import selectors
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any, Protocol

#: Turns that may be taken in one instant; more is a loop that goes round without waiting.
TURNS = 200_000


class Paused(Protocol):
    """What a loop asks of a process."""

    #: turns that were put aside while it is paused, in order; None while it runs
    held: "list[asyncio.Handle] | None"
    dead: bool


#: whose turn it is; None is the world outside: the database, clients, user code
PROCESS: ContextVar[Any] = ContextVar("PROCESS", default=None)


class Stuck(AssertionError):
    """Nothing can ever happen again, or nothing but the same."""


class _Task(asyncio.Task[Any]):
    """A task that knows its process, and hashes alike in each replay."""

    number: int
    process: Any

    def __hash__(self) -> int:
        return self.number


class SimulatedLoop(asyncio.SelectorEventLoop):
    """Virtual seconds from 0. `steps` counts the timers that fired, behind which is all input and output too."""

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self) -> None:
        self._seconds = 0.0
        self.steps = 0
        self._turns = 0
        self.tasks: dict[_Task, None] = {}
        super().__init__(selectors.SelectSelector())
        self.set_task_factory(self._make_task)

    def time(self) -> float:
        """Seconds that have passed."""
        return self._seconds

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], context: Context | None = None
    ) -> _Task:
        context = context or copy_context()
        # The number first: the base class puts the task into a set of its own.
        task = _Task.__new__(_Task)
        task.number, self._numbered = self._numbered, self._numbered + 1
        task.process = context.get(PROCESS)
        task.__init__(work, loop=loop, context=context)  # type: ignore[misc]
        self.tasks[task] = None
        task.add_done_callback(self._forget, context=_OUTSIDE.copy())
        return task

    _numbered = 0

    def _forget(self, task: Any) -> None:
        self.tasks.pop(task, None)

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Do it now: a thread would come when it likes."""
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:
            done.set_exception(error)
        return done

    def outside(self, delay: float, work: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        """Call something that belongs to no process in so many seconds."""
        return self.call_later(delay, work, *args, context=_OUTSIDE.copy())

    def _run_once(self) -> None:
        due = self._scheduled
        while due and due[0]._cancelled:  # type: ignore[attr-defined]
            self._timer_cancelled_count -= 1
            heapq.heappop(due)._scheduled = False  # type: ignore[attr-defined]
        if not self._ready:
            if not due:
                raise Stuck("nothing can ever happen again: no timer is set, nothing is on its way")
            if due[0].when() > self._seconds:
                self._seconds, self._turns = due[0].when(), 0
        while due and due[0].when() <= self._seconds:
            timer = heapq.heappop(due)
            timer._scheduled = False  # type: ignore[attr-defined]
            if timer._cancelled:  # type: ignore[attr-defined]
                self._timer_cancelled_count -= 1
            else:
                self.steps += 1
                self._ready.append(timer)
        for _ in range(len(self._ready)):
            self._turn(self._ready.popleft())

    _timer_cancelled_count: int

    def _turn(self, handle: asyncio.Handle) -> None:
        if handle._cancelled:
            return
        process: Paused | None = handle._context.get(PROCESS)  # type: ignore[attr-defined]
        if process is not None and process.held is not None:
            process.held.append(handle)
            return
        self._turns += 1
        if self._turns > TURNS:
            raise Stuck(f"something goes round and round without waiting: {handle!r}")
        handle._run()

    def go_on(self, handles: list[asyncio.Handle]) -> None:
        """Take turns that were put aside."""
        self._ready.extend(handles)


_OUTSIDE = Context()
