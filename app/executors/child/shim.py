"""The importable `mage_ai` modules that projects written for Mage expect.

Modules that mean something here only with the service behind them (`OURS`) are ours even where a real `mage_ai` is
installed: a real `trigger_pipeline` would write into a database that nobody looks at. Whatever else such a module
has is taken from the real one when it is asked for. The rest (`SPARE`) is found only if nothing else on the
import path has it; any other module of `mage_ai` is named with the way out.
"""

from __future__ import annotations

import os
import sys

from . import asking, decorators

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _from(module: str, name: str) -> Any:
    """The names of a sibling, which is imported when a block wants them: a fresh worker need not have it."""
    package = __name__.rpartition(".")[0]

    def load() -> dict[str, Any]:
        from importlib import import_module

        return dict(getattr(import_module(package + "." + module), name))

    return load


def repo_path(*unused: Any, **more: Any) -> str:
    """The project folder (Mage: `get_repo_path`)."""
    return _Where.project or os.getcwd()


class _Where:
    project = ""


#: wins over a real `mage_ai`: module -> its attributes
OURS: dict[str, Any] = {
    "mage_ai.data_preparation.decorators": lambda: {
        name: decorators.imported(name) for name in decorators.NAMES
    },
    "mage_ai.data_preparation.shared.secrets": _from("lookup", "SECRETS"),
    "mage_ai.data_preparation.variable_manager": _from("lookup", "VARIABLES"),
    "mage_ai.orchestration.run_status_checker": lambda: {"check_status": asking.check_status},
    "mage_ai.orchestration.triggers.api": lambda: {"trigger_pipeline": asking.trigger_pipeline},
}
#: fills in where no real one is
SPARE: dict[str, Any] = {
    "mage_ai": dict,
    "mage_ai.data_preparation": dict,
    "mage_ai.data_preparation.repo_manager": lambda: {"get_repo_path": repo_path},
    "mage_ai.data_preparation.shared": dict,
    "mage_ai.io": dict,
    "mage_ai.io.config": _from("ioconfig", "NAMES"),
    "mage_ai.io.file": _from("fileio", "NAMES"),
    "mage_ai.orchestration": dict,
    "mage_ai.orchestration.triggers": dict,
    "mage_ai.settings": dict,
    "mage_ai.settings.repo": lambda: {"get_repo_path": repo_path},
}
_WAY_OUT = "install mage-ai into the interpreter of the project (python: in its metadata.yaml)"


class _Finder:
    """What both finders share: the loader, which is the class itself."""

    modules: Any = None

    @classmethod
    def spec(cls, name: str) -> Any:
        """A spec of a module of ours. Every one is a package, so that we are asked for its children too."""
        from importlib.machinery import ModuleSpec

        loader: Any = cls
        return ModuleSpec(name, loader, is_package=True)

    @staticmethod
    def create_module(spec: Any) -> None:
        """None: the import system makes an ordinary module."""

    @classmethod
    def exec_module(cls, module: Any) -> None:
        """Fill the module."""
        vars(module).update(cls.modules[module.__name__]())
        module.__getattr__ = lambda attribute: _lacking(module.__name__, attribute)


class OursFinder(_Finder):
    """First entry of `sys.meta_path`."""

    modules = OURS

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> Any:
        """A spec for a module of `OURS`, None for every other name."""
        return cls.spec(name) if name in OURS else None


class ShimFinder(_Finder):
    """Last entry of `sys.meta_path`: supplies what nobody else has, or says what is missing."""

    modules = SPARE

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> Any:
        """A spec for a module of `SPARE`. Raises ModuleNotFoundError for any other one of `mage_ai`."""
        if name in SPARE:
            return cls.spec(name)
        if name.startswith("mage_ai.") and not _is_installed():
            raise ModuleNotFoundError("%s is not a part of Runwright: %s" % (name, _WAY_OUT), name=name)
        return None


def _lacking(module: str, attribute: str) -> Any:
    """An attribute that is not ours: the real module's, where there is one. Raises ImportError with the way out."""
    child = module + "." + attribute
    if attribute.startswith("__") or child in OURS or child in SPARE:
        raise AttributeError("module '%s' has no attribute '%s'" % (module, attribute))
    real = _real(module) if module in OURS else None
    if real is not None and hasattr(real, attribute):
        return getattr(real, attribute)
    if real is not None or _is_installed():
        raise AttributeError("module '%s' has no attribute '%s'" % (module, attribute))
    # Not an AttributeError: `from mage_ai.io import postgres` would put words of its own in its place.
    raise ImportError("%s is not a part of Runwright: %s" % (child, _WAY_OUT), name=module)


def _is_installed() -> bool:
    """Whether `mage_ai` is a real one."""
    spec = getattr(sys.modules.get("mage_ai"), "__spec__", None)
    return spec is not None and spec.loader is not ShimFinder


def _real(name: str) -> Any:
    """The installed module that ours stands before, under a name of its own; None when there is none."""
    private = "_runwright_real_" + name
    if private in sys.modules:
        return sys.modules[private]
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec, spec_from_file_location

    parent = sys.modules.get(name.rpartition(".")[0])
    found = PathFinder.find_spec(name, list(getattr(parent, "__path__", None) or []))
    if found is None or found.origin is None:
        return None
    spec = spec_from_file_location(private, found.origin)
    if spec is None or spec.loader is None:
        return None
    module = module_from_spec(spec)
    module.__package__ = name.rpartition(".")[0]
    sys.modules[private] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[private]
        raise
    return module


def install(project: str = "") -> None:
    """Make the shim importable; once is enough. `project` is what `get_repo_path` says."""
    _Where.project = project
    if ShimFinder not in sys.meta_path:
        sys.meta_path.insert(0, OursFinder)
        sys.meta_path.append(ShimFinder)


def uninstall() -> None:
    """Take the shim out again, with the modules it made."""
    finders = (OursFinder, ShimFinder)
    sys.meta_path[:] = [finder for finder in sys.meta_path if finder not in finders]
    for name in (*OURS, *SPARE):
        spec = getattr(sys.modules.get(name), "__spec__", None)
        if spec is not None and spec.loader in finders:
            del sys.modules[name]
