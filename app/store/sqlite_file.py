"""The file below SQLite: who may have it, where it lies, whether it is sound and still there."""

import errno
import fcntl
import logging
import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import IO, Final

from app.errors import StartRefused, StoreUnavailable

log = logging.getLogger(__name__)

#: Larger files are not read through at a start: it would take seconds a gigabyte.
CHECKED_BYTES: Final = 1024**3
_NETWORK = """
9p afs afpfs beegfs ceph cifs coda davfs gfs2 gluster glusterfs gpfs lustre ncpfs nfs nfs4 ocfs2 orangefs smb smb2 smb3
smbfs fuse.ceph fuse.gcsfuse fuse.glusterfs fuse.juicefs fuse.rclone fuse.s3fs fuse.sshfs
"""
#: File systems whose locks and shared memory do not hold between hosts, or not at all: WAL needs both.
NETWORK: Final = frozenset(_NETWORK.split())
MOUNTS = Path("/proc/self/mountinfo")


def take_lock(path: Path) -> IO[bytes]:
    """Lock `<file>.lock` for this process's life. Raises StartRefused when another service has it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = (path.parent / (path.name + ".lock")).open("ab+")
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.seek(0)
        holder = lock.read().decode(errors="replace").strip() or "unknown"
        lock.close()
        raise StartRefused(
            f"Another service (pid {holder}) already serves {path}.",
            hint="Stop it first. For several services at once use Postgres (--database-url postgresql://…).",
        ) from error
    with suppress(OSError):  # on a full disk: the pid is for people, the lock holds without it
        lock.truncate(0)
        lock.write(str(os.getpid()).encode())
        lock.flush()
    return lock


def unwritable(path: Path, error: OSError) -> StartRefused:
    """The refusal to serve a file whose folder cannot be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    hint = "Make room there." if full else "Let this user write the folder, or set RUNWRIGHT_HOME to another."
    return StartRefused(f"{path.parent} cannot be written: {error.strerror or error}.", hint=hint)


def file_system(path: Path) -> str | None:
    """The type of the file system that a path lies on, as in `mount`; None where the system does not tell."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    where = path.resolve()
    best, found = -1, None
    for line in lines:
        left, _, right = line.partition(" - ")
        point = Path(left.split()[4].replace("\\040", " "))
        depth = len(point.parts)
        if depth >= best and where.is_relative_to(point):  # of two on one point the later is the one seen
            best, found = depth, right.split()[0]
    return found


def require_local(path: Path, *, allowed: bool) -> None:
    """Raise StartRefused for a file on a network file system, unless that is allowed."""
    kind = file_system(path)
    if kind not in NETWORK:
        return
    if allowed:
        log.warning("SQLite on %s (%s): two hosts must never serve this file", kind, path)
        return
    raise StartRefused(
        f"{path} is on a network file system ({kind}), where SQLite's locks do not hold.",
        hint="Set RUNWRIGHT_HOME to a local disk, or use Postgres. Who knows that only one host ever serves it may set "
        "RUNWRIGHT_SQLITE_ON_NETWORK=true.",
    )


def require_sound(path: Path) -> None:
    """Read the file through, up to a size. Raises StartRefused for one that is damaged; never changes it."""
    size = path.stat().st_size if path.is_file() else 0
    if not size:
        _require_no_orphan(path)
    elif size > CHECKED_BYTES:
        log.info("%s is large and not read through now; runwright db check does", path)
    elif (fault := quick_check(path) or _cut(path, size)) is not None:
        raise _damaged(path, fault)


def _cut(path: Path, size: int) -> str | None:
    """A file at rest is whole pages. SQLite itself takes what is missing of the last one as zeros."""
    with path.open("rb") as file:
        told = int.from_bytes(file.read(18)[16:], "big")
    page = 65536 if told == 1 else told
    return f"{size} bytes are no whole pages of {page}" if page >= 512 and size % page else None


def _require_no_orphan(path: Path) -> None:
    """SQLite deletes the log of a file that is empty or missing, and with it perhaps all that is left."""
    wal = path.with_name(path.name + "-wal")
    if wal.is_file() and wal.stat().st_size:
        raise _damaged(path, f"it is empty or missing, but {wal.name} is not")


def _damaged(path: Path, fault: str) -> StartRefused:
    return StartRefused(
        f"The database {path} is damaged: {fault}.",
        hint="It is left as it is. Restore a backup (runwright db restore FILE --force keeps the damaged one beside "
        f"it), or copy the folder and rescue what can be read: sqlite3 {path.name} .recover",
    )


def quick_check(path: Path) -> str | None:
    """What SQLite finds wrong with the file, in its words; None when nothing. Raises StoreUnavailable."""
    try:
        with closing(sqlite3.connect(path, timeout=5)) as raw:
            raw.execute("PRAGMA query_only=ON")
            rows = raw.execute("PRAGMA quick_check(3)").fetchall()
    except sqlite3.OperationalError as error:
        raise StoreUnavailable(
            f"SQLite: {path}: {error}", hint="can this user read and write there?"
        ) from error
    except (
        sqlite3.DatabaseError,
        UnicodeDecodeError,
    ) as error:  # the latter: its words name a thing that is damaged
        return str(error)
    found = [str(row[0]).replace("*** in database main ***\n", "") for row in rows]
    return None if found == ["ok"] else "; ".join(found)


class Whereabouts:
    """Tells whether the file that was opened is still the one at its path.

    A file that was deleted or replaced takes writes all the same, and nobody would ever see them again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._identity = _identity(path)

    def require(self) -> None:
        """Raise StoreUnavailable when the path leads to another file, or to none."""
        if self._identity is not None and _identity(self._path) != self._identity:
            raise StoreUnavailable(
                f"SQLite: {self._path} was removed or replaced while it was being served",
                hint="put the file back, with the -wal beside it, or stop this service and restore a backup",
            )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino
