"""Frames on the link between the service and a worker: prefix, JSON header, JSON body.

The prefix carries a token that the service draws anew for each attempt, the lengths and a checksum: bytes that a
block writes into the link by accident never pass for a frame, and a frame of another attempt never counts.
"""

from __future__ import annotations

import struct
import zlib

#: magic, token, length of header and body together, length of the header, CRC-32 of both
PREFIX = struct.Struct(">4sIIII")
MAGIC = b"RWf1"
#: longest header and body together, in bytes
LIMIT = 64 * 1024 * 1024


class BrokenFrame(Exception):
    """What arrived is not a frame of this attempt."""


def pack(token: int, header: bytes, body: bytes = b"") -> bytes:
    """One frame, ready to be written."""
    checksum = zlib.crc32(body, zlib.crc32(header))
    length = len(header) + len(body)
    if length > LIMIT:
        raise BrokenFrame("frame of %d bytes, the limit is %d" % (length, LIMIT))
    return b"".join((PREFIX.pack(MAGIC, token, length, len(header), checksum), header, body))


def check(prefix: tuple[bytes, int, int, int, int], token: int | None) -> None:
    """Raise BrokenFrame unless the prefix can be one of ours (`token` None: any token)."""
    magic, found, length, header, _checksum = prefix
    if magic != MAGIC or length > LIMIT or header > length or token not in (None, found):
        raise BrokenFrame("not a frame of this attempt")


def split(prefix: tuple[bytes, int, int, int, int], payload: bytes) -> tuple[bytes, bytes]:
    """Header and body of a frame whose prefix has been checked; BrokenFrame if the checksum differs."""
    if zlib.crc32(payload) != prefix[4]:
        raise BrokenFrame("checksum differs")
    return payload[: prefix[3]], payload[prefix[3] :]


class Parser:
    """Cuts a stream of bytes into frames; `token` is the one that the next frame must carry."""

    def __init__(self) -> None:
        self.token = 0
        self._pending = bytearray()

    def feed(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """Header and body of every frame that `data` completes. Raises BrokenFrame at the first wrong byte."""
        pending = self._pending
        pending += data
        found = []
        while pending:
            if not MAGIC.startswith(pending[:4]):
                raise BrokenFrame("not a frame")
            if len(pending) < PREFIX.size:
                break
            prefix = PREFIX.unpack_from(pending)
            check(prefix, self.token)
            end = PREFIX.size + prefix[2]
            if len(pending) < end:
                break
            found.append(split(prefix, bytes(pending[PREFIX.size : end])))
            del pending[:end]
        return found
