"""A worker process: serves one block at a time until the service closes the link."""

from __future__ import annotations

import os
import signal
import sys
import time
from _thread import _count as running_threads

from . import asking, attempt, faults, frames, logs, project, shim
from .link import Link

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Worker:
    """This process. `serve` is its life."""

    def __init__(self, fd: int) -> None:
        self.link = Link(fd)
        asking.connect(self.link)
        self.folder = os.getcwd()
        self.in_user_code = False
        self.terminated = False
        self.imported = project.Imported(self.folder)
        self.stdout, self.stderr = sys.stdout, sys.stderr
        self.recursion_limit = sys.getrecursionlimit()
        self.environment = dict(_environment())
        self.pipes = _identity(1), _identity(2)
        signal.signal(signal.SIGTERM, self.on_sigterm)
        os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))

    def serve(self) -> None:
        """Answer calls until the link is closed or this process must not be used again."""
        self.link.send("ready", {"version": sys.version.split()[0]})
        logs.preload()
        while True:
            call = self.link.receive()
            if call is None:
                return
            if self.imported.changed():
                self.link.send("stale")
                return
            if not self.answer(call):
                return

    def answer(self, call: dict[str, Any]) -> bool:
        """Run one block and send its result; False if this process is to end by itself."""
        started_ns, threads = project.now_ns(), running_threads()
        began, cpu = time.perf_counter(), _cpu()
        self.in_user_code = True
        try:
            result = attempt.run(call, self.stdout)
        except faults.Terminated as error:
            result = attempt.failure(error, call)
        finally:
            self.in_user_code = False
        if self.terminated:
            self.die()
        result["metrics"] = {
            "duration_s": round(time.perf_counter() - began, 6),
            "cpu_s": round(_cpu() - cpu, 6),
        }
        certain = self.imported.note(started_ns)
        result["retire"] = self.clean_up(threads) or ("" if certain else "code changed meanwhile")
        result["leftovers"] = _has_children()
        self.link.send("result", result)
        # With what the block has left behind it is killed together, so that these can be counted.
        return bool(result["leftovers"]) or not result["retire"]

    def clean_up(self, threads: int) -> str:
        """Undo what a block may have changed in this process; why the process must go if that is not possible."""
        sys.stdout, sys.stderr = self.stdout, self.stderr
        try:
            self.stdout.flush()
            self.stderr.flush()
        except (OSError, ValueError):
            return "closed its output"
        if (_identity(1), _identity(2)) != self.pipes:
            return "replaced its output"
        if running_threads() > threads:
            return "left threads running"
        if _environment() != self.environment:
            return "changed the environment"
        if signal.getsignal(signal.SIGTERM) != self.on_sigterm or signal.getitimer(signal.ITIMER_REAL)[0]:
            return "changed signal handlers"
        os.chdir(self.folder)
        sys.setrecursionlimit(self.recursion_limit)
        return ""

    def on_sigterm(self, number: int, frame: Any) -> None:
        """Unwind user code once; die at once where there is none."""
        if not self.in_user_code:
            self.die()
        if not self.terminated:
            self.terminated = True
            raise faults.Terminated("the attempt was stopped")

    def die(self) -> None:
        """End by SIGTERM, so that the exit status says so."""
        for stream in (self.stdout, self.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                continue
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)


def serve(fd: int) -> None:
    """Be a worker on the link `fd`."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]
    project.extend_path(os.getcwd())
    shim.install(os.getcwd())
    try:
        Worker(fd).serve()
    except (OSError, frames.BrokenFrame) as error:
        # The link is gone or was written to: the service sees the end of this process, and says so.
        sys.__stderr__.write("worker: %s\n" % error)  # type: ignore[union-attr]
        os._exit(70)


def _has_children() -> bool:
    """Whether the block left child processes; those that have ended are reaped."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return True
        except ChildProcessError:
            return False


def _identity(fd: int) -> tuple[int, int]:
    try:
        found = os.fstat(fd)
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino


def _environment() -> Any:
    """The environment as it can be compared fastest: `os.environ` decodes every entry it is asked for."""
    return getattr(os.environ, "_data", os.environ)


def _cpu() -> float:
    """CPU seconds of this process and the children it has waited for."""
    return sum(os.times()[:4])
