"""A non-blocking stream socket on the event loop, made without awaiting: the service's end of a worker's link."""

import asyncio
import socket
from collections.abc import Callable

_CHUNK = 256 * 1024


class Channel:
    """Calls `on_data` with what arrives, and `on_end` once when the other side closed."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        on_data: Callable[[bytes], None],
        on_end: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._sock: socket.socket | None = sock
        self._on_data, self._on_end = on_data, on_end
        self._unsent = bytearray()
        sock.setblocking(False)
        loop.add_reader(sock, self.read)

    def send(self, data: bytes) -> None:
        """Write now what the socket takes, the rest when it can. Nothing happens if it is closed."""
        if self._sock is None:
            return
        if not self._unsent:
            data = data[self._try_send(data) :]
        if data and self._sock is not None:
            self._unsent += data
            self._loop.add_writer(self._sock, self._write)

    def read(self) -> bool:
        """Read once; whether anything came."""
        if self._sock is None:
            return False
        try:
            data = self._sock.recv(_CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if data:
            self._on_data(data)
            return True
        self.close()
        self._on_end()
        return False

    def drain(self) -> None:
        """Read everything that has arrived."""
        while self.read():
            pass

    def close(self) -> None:
        """Close this end; `on_end` is not called for it."""
        sock, self._sock = self._sock, None
        if sock is not None:
            self._loop.remove_reader(sock)
            self._loop.remove_writer(sock)
            sock.close()

    def _try_send(self, data: bytes | bytearray) -> int:
        assert self._sock is not None
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            return len(data)  # closed over there: reading says so

    def _write(self) -> None:
        del self._unsent[: self._try_send(self._unsent)]
        if not self._unsent and self._sock is not None:
            self._loop.remove_writer(self._sock)
