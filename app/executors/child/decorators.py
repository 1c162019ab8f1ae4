"""Block decorators, and the importable `mage_ai` modules that projects written for Mage expect.

A decorator returns the function as it is and notes it in the recorder of the file that is being executed. The
shim modules are found only if nothing else on the import path has them: a real `mage_ai` wins.
"""

from __future__ import annotations

import sys

from . import asking

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: What `mage_ai.data_preparation.decorators` offers (Mage: all of them identity functions).
NAMES = (
    "callback",
    "columns",
    "condition",
    "configuration",
    "custom",
    "data_exporter",
    "data_loader",
    "data_source",
    "extension",
    "on_failure",
    "on_success",
    "preprocesser",
    "preprocesser_functions",
    "render",
    "sensor",
    "streaming_sink",
    "streaming_source",
    "test",
    "transformer",
    "x",
    "xy",
    "y",
)


class Recorder:
    """Notes the decorated functions of one executed file, in the order of their definition."""

    current: Recorder | None = None

    def __init__(self, namespace: dict[str, Any]) -> None:
        self.namespace = namespace
        self.found: dict[str, list[Any]] = {}

    def decorator(self, name: str) -> Any:
        """The decorator `name`; used bare (`@test`) or called (`@callback('success')`)."""

        def decorate(*args: Any, **kwargs: Any) -> Any:
            if len(args) == 1 and callable(args[0]) and not kwargs:
                self.found.setdefault(name, []).append(args[0])
                return args[0]
            return decorate

        decorate.__name__ = decorate.__qualname__ = name
        return decorate


def _imported(name: str) -> Any:
    """The importable form: records only for the file being executed, not for a module that it imports."""

    def decorate(*args: Any, **kwargs: Any) -> Any:
        recorder = Recorder.current
        if recorder is not None and sys._getframe(1).f_globals is recorder.namespace:
            return recorder.decorator(name)(*args, **kwargs)
        if len(args) == 1 and callable(args[0]) and not kwargs:
            return args[0]
        return lambda function: function

    decorate.__name__ = decorate.__qualname__ = name
    return decorate


#: importable module -> its attributes
SHIM: dict[str, Any] = {
    "mage_ai": dict,
    "mage_ai.data_preparation": dict,
    "mage_ai.data_preparation.decorators": lambda: {name: _imported(name) for name in NAMES},
    **asking.MODULES,
}


class ShimFinder:
    """Last entry of `sys.meta_path`: supplies the modules of `SHIM` that nobody else has."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
        """A spec for a module of the shim, None for every other name."""
        if name not in SHIM:
            return None
        from importlib.machinery import ModuleSpec

        # Every one is a package, so that the import system asks us for its children too.
        return ModuleSpec(name, _LOADER, is_package=True)

    @staticmethod
    def create_module(spec: Any) -> None:
        """None: the import system makes an ordinary module."""

    @staticmethod
    def exec_module(module: Any) -> None:
        """Fill the module."""
        vars(module).update(SHIM[module.__name__]())


#: the finder is its own loader
_LOADER: Any = ShimFinder


def install() -> None:
    """Make the shim importable; once is enough."""
    if ShimFinder not in sys.meta_path:
        sys.meta_path.append(ShimFinder)


def uninstall() -> None:
    """Take the shim out again, with the modules it made."""
    if ShimFinder in sys.meta_path:
        sys.meta_path.remove(ShimFinder)
    for name in SHIM:
        spec = getattr(sys.modules.get(name), "__spec__", None)
        if spec is not None and spec.loader is ShimFinder:
            del sys.modules[name]
