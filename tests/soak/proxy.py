"""A wire to Postgres that can be cut, be dead, or lose one answer: a Unix socket before the server's own."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

_SOCKET = ".s.PGSQL.5432"


class Proxy:
    """Serves in its own folder; `url` turns a DSN of the server into one that goes through here."""

    def __init__(self, url: str) -> None:
        self._target, self._server_folder = url, url.rpartition("host=")[2]
        self._folder = Path(tempfile.mkdtemp(prefix="rw-px-"))  # short: a socket's path has 107 bytes
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        #: what the client sends is passed on, no answer comes back
        self.is_dead = False
        #: the answer to the next message with these bytes in it is lost, and the connection with it
        self.swallow: bytes | None = None
        #: the next message with these bytes never arrives: the client's side breaks, the server's stays as it is
        self.drop: bytes | None = None
        #: set when a message was dropped
        self.dropped = asyncio.Event()
        self._held: list[asyncio.StreamWriter] = []
        #: an answer is swallowed only on a connection that has sent these
        self.after: bytes = b""
        #: set when an answer was swallowed
        self.swallowed = asyncio.Event()
        #: new connections to be refused after an answer was swallowed or a message dropped
        self.refuse = 0

    @property
    def url(self) -> str:
        return self._target.replace(f"host={self._server_folder}", f"host={self._folder}")

    async def up(self) -> None:
        """Accept connections."""
        self._server = await asyncio.start_unix_server(self._serve, self._folder / _SOCKET)

    async def down(self) -> None:
        """Be gone, with everything that is connected."""
        if self._server is not None:
            self._server.close()
            self._server = None
            (self._folder / _SOCKET).unlink(missing_ok=True)
        self.cut()

    def cut(self) -> None:
        """Break every connection."""
        for writer in self._open:
            writer.transport.abort()
        self._open.clear()

    async def close(self) -> None:
        await self.down()
        for writer in self._held:
            writer.transport.abort()
        if self._serving:
            await asyncio.wait(self._serving)
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        if (self.swallowed.is_set() or self.dropped.is_set()) and self.refuse:
            self.refuse -= 1
            to_client.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        try:
            server, to_server = await asyncio.open_unix_connection(f"{self._server_folder}/{_SOCKET}")
        except OSError:  # it is down, as the client shall see
            to_client.transport.abort()
            return
        mine = {to_client, to_server}
        self._open |= mine
        losing = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._forth(client, to_server, losing))
                await self._back(server, to_client, losing)
                raise _Broken
        except* (_Broken, OSError):
            pass
        finally:
            self._open -= mine
            for writer in mine - set(self._held):
                writer.transport.abort()

    async def _forth(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, losing: asyncio.Event
    ) -> None:
        armed = False
        while data := await reader.read(65536):
            armed = armed or (self.after != b"" and self.after in data)
            if (armed or not self.after) and self.swallow is not None and self.swallow in data:
                self.swallow = None
                losing.set()
            if self.drop is not None and self.drop in data:
                self.drop = None
                self.dropped.set()
                self._held.append(writer)
                raise _Broken
            if not self.is_dead:
                writer.write(data)
        raise _Broken

    async def _back(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, losing: asyncio.Event
    ) -> None:
        while data := await reader.read(65536):
            if losing.is_set():
                # It has been done by the time the server says that it is ready for the next query.
                while not data.endswith((b"Z\x00\x00\x00\x05I", b"Z\x00\x00\x00\x05T")):
                    if not (more := await reader.read(65536)):
                        break  # the server is gone as well
                    data += more
                self.swallowed.set()
                return
            if not self.is_dead:
                writer.write(data)


class _Broken(Exception):
    """One side is gone."""


@asynccontextmanager
async def wire(url: str) -> AsyncIterator[Proxy]:
    """A proxy to the server of a DSN."""
    proxy = Proxy(url)
    await proxy.up()
    try:
        yield proxy
    finally:
        with suppress(OSError):
            await proxy.close()
