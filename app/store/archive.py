"""The folder of block outputs in one file, and back. A copy of the database names outputs by their path in it."""

import os
import tarfile
from pathlib import Path
from typing import Any

from app.errors import InvalidInput, NotFound, RunwrightError
from app.store import disk

_FILTER: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}


def beside(backup: Path) -> Path:
    """The archive that belongs to a copy of the database.

    >>> beside(Path("/b/monday.db"))
    PosixPath('/b/monday.db.artifacts.tar')
    """
    return backup.with_name(backup.name + ".artifacts.tar")


def pack(folder: Path, target: Path) -> int:
    """Write every output into an archive; how many. Call it after the database was copied.

    An output is on disk before a row names it, so what the copy names is here, unless its run was pruned since.
    """
    partial = target.with_name(target.name + ".partial")
    count = 0
    try:
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file, tarfile.open(fileobj=file, mode="w") as tar:
            for path in sorted(folder.rglob("*")):
                count += _add(tar, path, folder)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
        disk.sync(target.parent)
    except OSError as error:
        raise RunwrightError(f"{target} cannot be written: {error.strerror or error}.") from error
    finally:
        partial.unlink(missing_ok=True)
    return count


def _add(tar: tarfile.TarFile, path: Path, folder: Path) -> int:
    try:
        if not path.is_file() or path.is_symlink():
            return 0
        tar.add(path, arcname=str(path.relative_to(folder)), recursive=False)
    except FileNotFoundError:  # its run was pruned this moment
        return 0
    return 1


def unpack(source: Path, folder: Path) -> int:
    """Put the outputs of an archive back; how many. Nothing lands outside the folder, nothing else is touched."""
    if not source.is_file():
        raise NotFound(f"There is no {source}.", hint="It is made by: runwright db backup FILE --artifacts")
    try:
        with tarfile.open(source) as tar:
            members = [member for member in tar if member.isfile()]
            _require_inside(folder, members, source)
            folder.mkdir(parents=True, exist_ok=True)
            tar.extractall(folder, members=members, **_FILTER)
    except tarfile.TarError as error:
        raise InvalidInput(f"{source} is no archive of outputs: {error}.") from error
    except OSError as error:
        raise RunwrightError(f"{folder} cannot be written: {error.strerror or error}.") from error
    return len(members)


def _require_inside(folder: Path, members: list[tarfile.TarInfo], source: Path) -> None:
    """Refuse an archive that would write elsewhere; Python's own filter is not in every 3.11."""
    root = folder.resolve()
    for member in members:
        if not (root / member.name).resolve().is_relative_to(root):
            raise InvalidInput(f"{source} is no archive of outputs: {member.name} lies outside of it.")
