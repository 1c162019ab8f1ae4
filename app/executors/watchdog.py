"""Breaks an inline block that holds the event loop: a thread watches, a signal interrupts, only user code is hit."""

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from app import clock

LIMIT_S = 1.0
_TICK_S = 0.1
_SIGNAL = signal.SIGUSR2
#: code that must not be interrupted half-way, even if a block has called it
_OURS = ("asyncio", "app", "selectors", "threading", "uvloop")


class LoopHeld(BaseException):
    """Raised in a block that runs inline and does not give the loop back."""


class Watchdog:
    """Watches the loop while inline blocks are active, and costs nothing while none is.

    `limit_s` is how long the loop may stand still.
    """

    def __init__(self, limit_s: float = LIMIT_S) -> None:
        self.limit_s = limit_s
        self._active = 0
        self._seen = 0.0
        self._wanted = threading.Event()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Install the handler and start the thread. Only in the main thread, where signals arrive."""
        self._loop = asyncio.get_running_loop()
        self._before = signal.signal(_SIGNAL, self._on_signal)
        self._thread = threading.Thread(
            target=self._watch, args=(threading.get_ident(),), name="inline-watchdog", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End the thread, put the handler back."""
        if self._thread is None:
            return
        self._stopped.set()
        self._wanted.set()
        self._thread.join()
        self._thread = None
        if self._timer is not None:
            self._timer.cancel()
        signal.signal(_SIGNAL, self._before)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While inside, a loop that stands still for too long is interrupted."""
        self._active += 1
        if self._active == 1:
            self._tick()
            self._wanted.set()
        try:
            yield
        finally:
            self._active -= 1
            if self._active == 0:
                self._wanted.clear()

    def _tick(self) -> None:
        self._seen = clock.monotonic()
        self._timer = self._loop.call_later(_TICK_S, self._tick) if self._active else None

    def _watch(self, main: int) -> None:
        while self._wanted.wait() and not self._stopped.wait(_TICK_S):
            if self._active and clock.monotonic() - self._seen > self.limit_s:
                signal.pthread_kill(main, _SIGNAL)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if clock.monotonic() - self._seen > self.limit_s and _in_user_code(frame):
            self._seen = clock.monotonic()
            raise LoopHeld(
                f"the block held the event loop for {self.limit_s:g} s: await, or run it in a worker"
            )


def _in_user_code(frame: FrameType | None) -> bool:
    """Whether a block is running here, and nothing between it and this instant is the loop's or ours."""
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.startswith("_runwright_block_"):
            return True
        if module.split(".")[0] in _OURS:
            return False
        frame = frame.f_back
    return False
