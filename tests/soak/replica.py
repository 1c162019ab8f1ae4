"""A replica that looks like one on a host of its own: its process lives in a pid namespace of its own.

Replicas of one host can prove each other's death by the process table, and take over at once. In a namespace
of its own a process is nobody's neighbour: only its lease tells that it is gone.
"""

import os
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tests.soak.service import Process, Service, wait_for

_PLAIN = ("--pid", "--fork", "--mount-proc", "--kill-child")
#: The first process of a namespace is deaf to its own SIGKILL, so it is not the service.
_FIRST = ("sh", "-c", '"$@"; exit $?', "first")


@cache
def alone() -> tuple[str, ...]:
    """What starts a program in a pid namespace of its own; empty where the kernel does not let us."""
    for options in (_PLAIN, ("--user", "--map-root-user", *_PLAIN)):
        program = shutil.which("unshare")
        if program and not subprocess.run([program, *options, "true"], capture_output=True).returncode:
            return (program, *options)
    return ()


@dataclass
class Replica(Service):
    """A service on a "host" of its own where that is possible; else a neighbour, as any other service."""

    apart: bool = True
    _pid: int = 0
    _first: int = 0
    #: the namespaces of all its lives: the kernel gives the number of one that is gone to the next
    _kept: list[int] = field(default_factory=list)

    def command(self) -> list[str]:
        apart = alone() if self.apart else ()
        return [*apart, *(_FIRST if apart else ()), *super().command()]

    def start(self) -> None:
        super().start()
        self._pid = self._first = 0

    @property
    def pid(self) -> int:
        """The service's own process, as this host sees it."""
        assert self.process is not None
        if not self.apart or not alone():
            return self.process.pid
        if not self._pid:
            wait_for(self._find, 20, "the service's process is there")
        return self._pid

    def _find(self) -> bool:
        assert self.process is not None
        self._first = self._first or _child(self.process.pid)
        self._pid = _child(self._first) if self._first else 0
        if self._pid:
            self._kept.append(os.open(f"/proc/{self._pid}/ns/pid", os.O_RDONLY))
        return bool(self._pid)

    @property
    def where(self) -> tuple[str, int]:
        """How the node of this process names itself: the end of its host's name, and its pid there."""
        namespace = Path(f"/proc/{self.pid}/ns/pid").stat().st_ino
        status = Path(f"/proc/{self.pid}/status").read_text()
        inner = next(line.split()[-1] for line in status.splitlines() if line.startswith("NSpid:"))
        return f":{namespace}", int(inner)

    def kill(self) -> None:
        assert self.process is not None
        os.kill(self.pid, signal.SIGKILL)
        self.process.wait(timeout=10)

    def terminate(self, seconds: float = 45) -> int:
        assert self.process is not None
        os.kill(self.pid, signal.SIGTERM)
        return self.process.wait(timeout=seconds)

    def freeze(self) -> None:
        """SIGSTOP: it stands still, what it started does not."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT, if it is still there."""
        if self.process is not None and self.process.poll() is None:
            os.kill(self.pid, signal.SIGCONT)

    def family(self) -> set[Process]:
        return {process for process in super().family() if process[0] not in (self._pid, self._first)}

    def end(self) -> None:
        """Whatever state it is in: it is gone, and its namespaces may be."""
        if self.process is not None and self.process.poll() is None:
            self.kill()
        while self._kept:
            os.close(self._kept.pop())


def _child(pid: int) -> int:
    """The first process that a process has started, 0 when there is none."""
    try:
        return int((Path(f"/proc/{pid}/task/{pid}/children").read_text().split() or ["0"])[0])
    except OSError:
        return 0
