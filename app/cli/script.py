"""`runwright exec`: a script written for Mage, outside of any pipeline, on a running service."""

import runpy
import sys
import traceback
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from app.cli.exits import Exit, code_of
from app.cli.service import find_service
from app.client import set_default_server, trigger_pipeline
from app.errors import NotFound, RunwrightError

#: importable module -> its attributes
_SHIM: Final[dict[str, dict[str, Any]]] = {
    "mage_ai": {},
    "mage_ai.orchestration": {},
    "mage_ai.orchestration.triggers": {},
    "mage_ai.orchestration.triggers.api": {"trigger_pipeline": trigger_pipeline},
}


def execute(server: str | None, script: Path, arguments: Sequence[str]) -> int:
    """Run a script as `python script arguments` would; its exit code."""
    if not script.is_file():
        raise NotFound(f"There is no script '{script}'.")
    service = find_service(server)
    if service.url is not None:
        set_default_server(service.url, service.key)
    _install()
    sys.argv = [str(script), *arguments]
    sys.path.insert(0, str(script.resolve().parent))
    try:
        runpy.run_path(str(script), run_name="__main__")
    except RunwrightError as error:  # the script did not handle it: its author wants to see where
        traceback.print_exc()
        return code_of(error)
    return Exit.OK


def _install() -> None:
    """Put the modules in place. What an installed `mage_ai` has besides them stays importable."""
    real = find_spec("mage_ai")
    places = list(real.submodule_search_locations or ()) if real else []
    for name, attributes in _SHIM.items():
        module = ModuleType(name, "Runwright's stand-in for Mage's module.")
        _, *below = name.split(".")
        module.__path__ = [str(Path(place, *below)) for place in places]
        vars(module).update(attributes)
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
