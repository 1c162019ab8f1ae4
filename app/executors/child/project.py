"""The project seen from a worker: its import path, and whether code that was imported has changed since."""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_INSTALLED = (os.sep + "site-packages", os.sep + "dist-packages")
#: block folders of Mage's layout; `transformers` is also a well-known library
_BLOCK_FOLDERS = (
    "callbacks",
    "conditionals",
    "custom",
    "data_exporters",
    "data_loaders",
    "sensors",
    "transformers",
)


def extend_path(project: str) -> None:
    """Put the project folder and its parent on the import path: after the standard library, before packages.

    Mage appends the parent, so that `from <project>.utils.x import y` works; the folder itself is ours.
    """
    parent = os.path.dirname(project)
    ours = [path for path in (project, parent) if path not in sys.path]
    installed = [n for n, path in enumerate(sys.path) if path.endswith(_INSTALLED)]
    place = installed[0] if installed else len(sys.path)
    sys.path[place:place] = ours
    sys.meta_path.insert(0, _InstalledFirst(ours))


class _InstalledFirst:
    """A library that is named like a block folder (`transformers`) is the library, as it is in Mage."""

    def __init__(self, project_paths: list[str]) -> None:
        self._project_paths = project_paths

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if path is not None or name not in _BLOCK_FOLDERS:
            return None
        from importlib.machinery import PathFinder

        others = [entry for entry in sys.path if entry not in self._project_paths]
        spec = PathFinder.find_spec(name, others)
        return spec if spec is not None and spec.loader is not None and spec.origin else None


class Imported:
    """Modules of the project that this process has imported, each with its file's signature."""

    def __init__(self, project: str) -> None:
        self._inside = project + os.sep
        self._known = len(sys.modules)
        self._files: dict[str, tuple[int, ...]] = {}

    def changed(self) -> bool:
        """Whether the file of any of them is not what it was."""
        return any(_signature(file) != before for file, before in self._files.items())

    def note(self, started_ns: int) -> bool:
        """Note what has been imported since the last time; False if a file changed after `started_ns`.

        The signature is taken after the import, so a file touched in between might have been read before.
        """
        if len(sys.modules) == self._known:
            return True
        self._known = len(sys.modules)
        certain = True
        for module in list(sys.modules.values()):
            file = getattr(module, "__file__", None)
            if type(file) is not str or file in self._files or not self._is_ours(module, file):
                continue
            self._files[file] = found = _signature(file)
            certain = certain and max(found[:2], default=0) < started_ns
        return certain

    def _is_ours(self, module: Any, file: str) -> bool:
        if not file.startswith(self._inside) or module.__name__.startswith("_runwright"):
            return False
        return not any(mark + os.sep in file for mark in _INSTALLED) and not file.startswith(sys.prefix)


def _signature(file: str) -> tuple[int, ...]:
    try:
        found = os.stat(file)
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


def now_ns() -> int:
    """The wall clock that file stamps are compared with; a little back, since file systems round down."""
    return time.time_ns() - 20_000_000
