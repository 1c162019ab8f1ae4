"""What blocks look up by name: secrets, variables of pipelines, outputs of other runs (Mage's functions for it).

All of it is asked of the service over the worker's own link.
"""

from __future__ import annotations

import sys

from . import asking, references

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def get_secret_value(name: str, *unused: Any, suppress_warning: bool = False, **more: Any) -> str | None:
    """The value of a secret; None with a warning when there is none of that name (Mage)."""
    try:
        return secret(name)
    except asking.ServiceError as error:
        if error.kind not in ("SecretNotFound", "NotFound"):
            raise
    if not suppress_warning:
        sys.stdout.write("WARNING: Could not find secret value for secret %s.\n" % name)
    return None


def secret(name: str) -> str:
    """The value of a secret. Raises ServiceError when there is none."""
    return str(asking.ask("get_secret_value", {"name": str(name)}))


def fill_in(kwargs: dict[str, Any]) -> None:
    """Put secrets into the variables that refer to them."""
    known: dict[str, str] = {}

    def once(name: str) -> str:
        if name not in known:
            known[name] = secret(name)
        return known[name]

    for name in kwargs.pop(references.KEY, ()):
        kwargs[name] = references.resolve(kwargs[name], once)


def get_global_variables(pipeline_uuid: str, **unused: Any) -> dict[str, Any]:
    """The variables of a pipeline as its files say."""
    values = asking.ask("get_global_variables", {"pipeline_uuid": pipeline_uuid})
    return {name: references.resolve(value, secret) for name, value in values.items()}


def get_global_variable(pipeline_uuid: str, key: str, **unused: Any) -> Any:
    """One variable of a pipeline as its files say; None when there is none of that name (Mage)."""
    values = asking.ask("get_global_variables", {"pipeline_uuid": pipeline_uuid})
    return references.resolve(values.get(key), secret)


def get_variable(pipeline_uuid: str, block_uuid: str, variable_uuid: str = "output_0", **unused: Any) -> Any:
    """What a block of a pipeline left in its newest completed run: `output_0` is the first output, and so on."""
    from . import outputs

    refs = asking.ask("get_variable", {"pipeline_uuid": pipeline_uuid, "block_uuid": block_uuid})
    kind, _, number = variable_uuid.rpartition("_")
    if kind != "output" or not number.isdigit() or int(number) >= len(refs):
        names = ", ".join("output_%d" % n for n in range(len(refs))) or "no output"
        raise KeyError("block '%s' has left %s, not '%s'" % (block_uuid, names, variable_uuid))
    return outputs.open_input([refs[int(number)]], "", block_uuid)


def _set_global_variable(*args: Any, **kwargs: Any) -> None:
    """A run does not change the files of its project."""
    raise NotImplementedError(
        "variables are changed in the pipeline's metadata.yaml; hand a value on as an output of the block"
    )


SECRETS = {"get_secret_value": get_secret_value}
VARIABLES = {
    "get_global_variable": get_global_variable,
    "get_global_variables": get_global_variables,
    "get_variable": get_variable,
    "set_global_variable": _set_global_variable,
    "delete_global_variable": _set_global_variable,
}
