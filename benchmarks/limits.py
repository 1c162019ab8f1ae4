"""What the machine itself can do, by the barest program for each thing that the service cannot avoid."""

import asyncio
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.service import pss_mib

_ECHO = """
import asyncio
class Echo(asyncio.Protocol):
    def connection_made(self, transport): self.transport = transport
    def data_received(self, data): self.transport.write(data)
async def main():
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""
_PING = "import os\nwhile data := os.read(0, 65536): os.write(0, data)"
_IMPORTS = "import fastapi, uvicorn, sqlalchemy.ext.asyncio, apscheduler.schedulers.asyncio{more}"
_WAIT = "\nprint(flush=True)\ninput()"


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds, and MiB."""

    fsync: float
    echo: float
    process: float
    imports: float
    imports_mib: float


async def measure(folder: Path, *, postgres: bool) -> Limits:
    """The limits now, in about two seconds."""
    imports, mib = await asyncio.to_thread(_imports, ", asyncpg" if postgres else "")
    return Limits(
        fsync=await asyncio.to_thread(_fsync, folder),
        echo=await _echo(),
        process=await asyncio.to_thread(_process),
        imports=imports,
        imports_mib=mib,
    )


def _median(once: Callable[[], object], times: int) -> float:
    took = []
    for _ in range(times):
        began = time.perf_counter()
        once()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def _fsync(folder: Path) -> float:
    """One page appended and on disk: the least that a commit can be."""
    fd = os.open(folder / "fsync", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    page = bytes(4096)
    try:
        return _median(lambda: (os.write(fd, page), os.fdatasync(fd)), 100)
    finally:
        os.close(fd)


def _process() -> float:
    """A word to a waiting process and back: the least that a block in a worker can be."""
    ours, theirs = socket.socketpair()
    with ours, subprocess.Popen([sys.executable, "-I", "-S", "-c", _PING], stdin=theirs) as child:
        theirs.close()
        ours.send(b"warm")
        ours.recv(16)
        took = _median(lambda: (ours.send(b"ping"), ours.recv(16)), 300)
        ours.shutdown(socket.SHUT_WR)
        child.wait(timeout=10)
    return took


async def _echo() -> float:
    """A word to an asyncio server in another process and back: the least that a request can be."""
    with subprocess.Popen([sys.executable, "-c", _ECHO], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        port = int(await asyncio.to_thread(server.stdout.readline))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        took = []
        for _ in range(300):
            began = time.perf_counter()
            writer.write(b"ping")
            await reader.read(16)
            took.append(time.perf_counter() - began)
        writer.close()
        server.kill()
    return statistics.median(took)


def _imports(more: str) -> tuple[float, float]:
    """Seconds until a bare process has imported the libraries, and its memory then."""
    program = _IMPORTS.format(more=more) + _WAIT
    began = time.perf_counter()
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe) as child:
        assert child.stdout is not None
        child.stdout.readline()
        took = time.perf_counter() - began
        mib = pss_mib(child.pid)
        child.communicate(b"\n", timeout=10)
    return took, mib
