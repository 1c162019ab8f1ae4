"""The real service as a process: started on a temporary project, looked at from outside, stopped."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.client import connect

CHAIN = 40
WIDE = 3
_START_S = 30
_BLOCK = "@custom\ndef block(*args, **kwargs):\n    return 1\n"
#: Its first line is the stamp: the clock is the same for every process of the machine.
_FIRST = """import time; stamp = time.monotonic_ns()
import os

@custom
def block(*args, **kwargs):
    with open({fifo!r}, "wb", buffering=0) as fifo:
        fifo.write(b"%d\\n" % stamp)
"""


def write_project(folder: Path) -> None:
    """Pipelines `first` (one block, which tells when it began), `three` and `chain`."""
    (folder / "custom").mkdir(parents=True)
    (folder / "metadata.yaml").write_text("name: bench\n")
    fifo = folder / "first.fifo"
    os.mkfifo(fifo)
    (folder / "custom" / "first.py").write_text(_FIRST.format(fifo=str(fifo)))
    _pipeline(folder, "first", ["first"])
    for name, count in (("three", WIDE), ("chain", CHAIN)):
        blocks = [f"{name}_{n}" for n in range(count)]
        for block in blocks:
            (folder / "custom" / f"{block}.py").write_text(_BLOCK)
        _pipeline(folder, name, blocks)


def _pipeline(folder: Path, name: str, blocks: list[str]) -> None:
    lines = ["blocks:"]
    for before, block in zip([None, *blocks], blocks, strict=False):
        lines += [f"- uuid: {block}", "  type: custom", f"  upstream_blocks: [{before or ''}]"]
    path = folder / "pipelines" / name / "metadata.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(lines) + "\n")


@dataclass(frozen=True, slots=True)
class Service:
    """A service that answers."""

    port: int
    process: subprocess.Popen[bytes]
    folder: Path
    #: seconds from the start of the process to the first `ready`
    started_s: float

    def family(self) -> dict[str, list[int]]:
        """Process ids by part: `service`, `warden`, `workers`."""
        (warden,) = _children(self.process.pid)
        return {"service": [self.process.pid], "warden": [warden], "workers": _children(warden)}

    def pss_mib(self, *parts: str) -> float:
        """Memory of these parts: private pages, and each shared one divided among those who share it."""
        family = self.family()
        return sum(pss_mib(pid) for part in parts for pid in family[part])

    def cpu_s(self) -> float:
        """CPU seconds that the service process has used."""
        return cpu_s(self.process.pid)


@asynccontextmanager
async def serving(
    folder: Path, database_url: str | None, *, home: Path | None = None
) -> AsyncIterator[Service]:
    """`runwright start` on a project; SQLite in its folder unless a database is given. Each replica has its `home`."""
    port = _free_port()
    command = [str(Path(sys.executable).with_name("runwright")), "start", str(folder), "--port", str(port)]
    if database_url:
        command += ["--database-url", database_url]
    log = folder / f"service-{port}.log"
    more = {"RUNWRIGHT_HOME": str(home)} if home else {}
    began = time.monotonic()
    with log.open("wb") as stream:  # a file, not a pipe: one that nobody reads would stop the service
        process = subprocess.Popen(command, env=_environment() | more, stderr=stream)
    try:
        await _until_ready(port, process, log)
        yield Service(port, process, folder, time.monotonic() - began)
    finally:
        process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(process.wait, timeout=_START_S)


async def _until_ready(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    async with asyncio.timeout(_START_S):
        while process.poll() is None:
            try:
                async with await connect(port) as connection:
                    if (await connection.ask("GET", "/readyz")).status == 200:
                        return
            except ConnectionError:
                await asyncio.sleep(0.005)  # nothing tells when a process begins to listen
    raise RuntimeError(f"the service ended:\n{log.read_text()}")


def _environment() -> dict[str, str]:
    """Ours, less what would make it another service; bytecode is kept, as an installation has it."""
    unwanted = ("RUNWRIGHT_", "PYTHONDONTWRITEBYTECODE")
    return {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def pss_mib(pid: int) -> float:
    """Proportional set size of a process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def cpu_s(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def stamps(folder: Path) -> "Stamps":
    """Where the block of pipeline `first` tells when it began."""
    return Stamps(os.open(folder / "first.fifo", os.O_RDWR | os.O_NONBLOCK))


class Stamps:
    """Reads the stamps, in nanoseconds of the monotonic clock."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    async def next(self) -> int:
        """The next one; waits for it."""
        loop = asyncio.get_running_loop()
        come: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._fd, lambda: come.done() or come.set_result(None))
        try:
            await come
        finally:
            loop.remove_reader(self._fd)
        return int(os.read(self._fd, 64))

    def close(self) -> None:
        """Let go of the pipe."""
        os.close(self._fd)
