"""The service as a process that can be killed, and what can be seen of it from outside."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

BIN = Path(sys.executable).parent
MARK = "SOAK_MARK"
#: words in a service's log that no fault excuses
FAULTS = ("Traceback", "internal_error", "the engine failed", "was driven by nobody")
#: a service's user code is gone so soon after it
GONE_S = 2.0

#: pid and start in clock ticks: tells a process from a later one with the same pid
Process = tuple[int, int]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@dataclass
class Service:
    """One project, one home, one port; started and killed again and again."""

    project: Path
    ledger: Path
    settings: dict[str, str] = field(default_factory=dict)
    name: str = "one"
    port: int = field(default_factory=free_port)
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.ledger / f"service-{self.name}.log"

    @property
    def home(self) -> Path:
        return self.project / ".runwright"

    def start(self) -> None:
        """Begin; does not wait until it answers."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("RUNWRIGHT_")}
        environment = {**kept, **self.settings, MARK: self.mark, "SOAK_LEDGER": str(self.ledger)}
        with self.log.open("ab") as log:
            self.started_at = time.time()
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )

    def command(self) -> list[str]:
        """What is started."""
        return [str(BIN / "runwright"), "start", str(self.project), "--port", str(self.port)]

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    def wait_ready(self, seconds: float = 30) -> None:
        def ready() -> bool:
            assert self.process is not None and self.process.poll() is None, self.tail()
            return self.is_ready()

        wait_for(ready, seconds, "the service is ready")

    def kill(self) -> None:
        """SIGKILL, and wait for the kernel to say so."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(timeout=10)

    def terminate(self, seconds: float = 45) -> int:
        """SIGTERM, and wait for the end; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=seconds)

    def tail(self, lines: int = 30) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def family(self) -> set[Process]:
        """Every living process that carries our mark, without the service itself."""
        wanted = f"{MARK}={self.mark}".encode()
        mine = self.process.pid if self.process is not None else None
        return {p for p in processes(lambda environ: wanted in environ.split(b"\0")) if p[0] != mine}


def processes(wanted: Callable[[bytes], bool]) -> set[Process]:
    """The living processes whose environment is wanted."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (
                    wanted((entry / "environ").read_bytes())
                    and (born := started(int(entry.name))) is not None
                ):
                    found.add((int(entry.name), born))
            except OSError:
                continue  # it has just ended
    return found


def started(pid: int) -> int | None:
    """Start of a process in clock ticks; None when it is gone or only a corpse."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def alive(family: set[Process]) -> set[Process]:
    """Those that still live."""
    return {process for process in family if started(process[0]) == process[1]}


def left_after(family: set[Process]) -> list[str]:
    """What is wrong if some of the family of a killed service still live when they must not."""
    until = time.monotonic() + GONE_S
    while (left := alive(family)) and time.monotonic() < until:
        time.sleep(0.02)
    return [f"processes of the killed service live on: {left}"] if left else []


def logged(services: Iterable[Service]) -> list[str]:
    """What services said that they should never have to say."""
    return [
        f"{service.name} logged: {line}"
        for service in services
        for line in service.log.read_text(errors="replace").splitlines()
        if any(word in line for word in FAULTS)
    ][:20]


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Wait until a condition holds; fails with `what` when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)


@contextmanager
def serving(service: Service) -> Iterator[httpx.Client]:
    """A ready service and a client of it; killed at the end if it still runs."""
    service.start()
    try:
        service.wait_ready()
        with httpx.Client(base_url=f"{service.url}/api/v1", timeout=70) as client:
            yield client
    finally:
        assert service.process is not None
        if service.process.poll() is None:
            service.process.send_signal(signal.SIGCONT)
            service.kill()


def read_ledger(folder: Path) -> list[dict[str, object]]:
    """The lines of the ledger of effects, in the order in which they came to disk."""
    path = folder / "ledger"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
