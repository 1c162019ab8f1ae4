"""The one place that opens a file of the project folder.

A path is joined, resolved and must stay inside the root; the open follows no link and waits for no fifo, and
only a regular file of a sane size is read. Editing a project is trusted, reading it must still be safe: a
link to `/etc` or a named pipe in its place must neither leak nor hang the service.
"""

import errno
import hashlib
import os
import stat
from pathlib import Path
from typing import NamedTuple

from app.pipelines.problems import BadDefinition

MAX_BYTES = 1024 * 1024


class Signature(NamedTuple):
    """What changes when a file's content does, as far as the file system can tell."""

    mtime_ns: int
    ctime_ns: int
    size: int
    inode: int


def signature(path: str) -> Signature | None:
    """The signature of what `path` leads to; None when there is nothing."""
    try:
        return _signature(os.stat(path))  # noqa: PTH116 - called thousands of times a second
    except (OSError, ValueError):
        return None


def digest(root: Path, relative: str) -> str | None:
    """SHA-256 of a project file, hexadecimal; None for what cannot be read."""
    try:
        return hashlib.sha256(_content(root, relative)[0]).hexdigest()
    except (BadDefinition, OSError):
        return None


def _content(root: Path, relative: str) -> tuple[bytes, os.stat_result]:
    """The bytes of a project file, and what it was before they were read."""
    path = resolve(root, relative)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise BadDefinition("is not a regular file", relative)
            content = _read(descriptor)
        finally:
            os.close(descriptor)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(relative) from error
    except OSError as error:
        if error.errno == errno.ELOOP:  # became a link since it was resolved, or a link to itself
            raise BadDefinition("is a link that leads nowhere", relative) from error
        raise
    if len(content) > MAX_BYTES:
        raise BadDefinition("is larger than 1 MiB", relative)
    return content, found


def read_text(root: Path, relative: str) -> tuple[str, Signature]:
    """The text of a project file, with the signature it had before it was read.

    Raises BadDefinition for a path that leaves the root, something other than a regular file, a size over
    1 MiB, or bytes that are not UTF-8; FileNotFoundError when there is nothing; OSError when the system fails.
    """
    content, found = _content(root, relative)
    try:
        return content.decode("utf-8-sig"), _signature(found)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadDefinition("is not UTF-8 text", relative, line) from error


def _read(descriptor: int) -> bytes:
    """The content, cut one byte after what is allowed."""
    parts: list[bytes] = []
    room = MAX_BYTES + 1
    while room > 0 and (part := os.read(descriptor, room)):
        parts.append(part)
        room -= len(part)
    return b"".join(parts)


def resolve(root: Path, relative: str) -> str:
    """The real path of a project file; BadDefinition when it lies outside the root, also by way of a link."""
    if not relative or "\0" in relative or relative.startswith(("/", "~")) or ".." in relative.split("/"):
        raise BadDefinition(f"path '{relative}' must be relative and stay inside the project", relative)
    real_root = os.path.realpath(root)
    path = os.path.realpath(os.path.join(real_root, relative))  # noqa: PTH118
    if not path.startswith(real_root.rstrip("/") + "/"):
        raise BadDefinition(f"path '{relative}' leads out of the project", relative)
    return path


def is_file(root: Path, relative: str) -> bool:
    """Whether there is a regular file inside the project; raises BadDefinition for a path that leaves it."""
    try:
        return stat.S_ISREG(os.lstat(resolve(root, relative)).st_mode)
    except (OSError, ValueError):
        return False


def _signature(found: os.stat_result) -> Signature:
    return Signature(found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)
