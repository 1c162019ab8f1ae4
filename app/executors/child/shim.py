"""The importable `mage_ai` modules that projects written for Mage expect.

They are found only if nothing else on the import path has them: a real `mage_ai` wins.
"""

from __future__ import annotations

import sys

from . import asking, decorators

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: importable module -> its attributes
SHIM: dict[str, Any] = {
    "mage_ai": dict,
    "mage_ai.data_preparation": dict,
    "mage_ai.data_preparation.decorators": lambda: {
        name: decorators.imported(name) for name in decorators.NAMES
    },
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
