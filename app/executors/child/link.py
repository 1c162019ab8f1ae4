"""The worker's end of the link: blocking frames on a plain file descriptor."""

from __future__ import annotations

import json
import os

from . import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Link:
    """Reads calls and writes answers; each answer carries token, attempt and epoch of the call before it."""

    def __init__(self, fd: int) -> None:
        os.set_inheritable(fd, False)
        self.fd = fd
        self._token = 0
        self._stamp = "{}"

    def receive(self) -> Any:
        """The body of the next call; None when the service closed the link."""
        data = self._read(b"", frames.PREFIX.size)
        if data is None:
            return None
        prefix = frames.PREFIX.unpack_from(data)
        frames.check(prefix, None)
        data = self._read(data, frames.PREFIX.size + prefix[2])
        if data is None:
            return None
        header, body = frames.split(prefix, data[frames.PREFIX.size :])
        self._token = prefix[1]
        self._stamp = header.decode()
        return json.loads(body)

    def send(self, op: str, body: Any = None) -> None:
        """Write one answer: the header of the call with `op` added. Raises OSError if the link is closed."""
        header = '%s"op":"%s"}' % (self._stamp[:-1] + "," if len(self._stamp) > 2 else "{", op)
        data = memoryview(frames.pack(self._token, header.encode(), json.dumps(body).encode()))
        while data:
            data = data[os.write(self.fd, data) :]

    def _read(self, data: bytes, size: int) -> bytes | None:
        """`data` and what follows it, at least `size` bytes. Calls never overlap, so nothing of a next one comes."""
        while len(data) < size:
            part = os.read(self.fd, max(size - len(data), 65536))
            if not part:
                return None
            data += part
        return data
