"""`--runtime-vars`: a JSON object, as strictly read as a request's body."""

from collections.abc import Mapping
from typing import Any, Final

from app.errors import InvalidInput, RunwrightError
from app.routers.body import parse

_HINT: Final = """For example: --runtime-vars '{"key": "value"}'"""


def runtime_variables(text: str | None) -> Mapping[str, Any]:
    """The variables; none when nothing is given. Raises InvalidInput."""
    if text is None:
        return {}
    try:
        value = parse(text.encode("utf-8", "surrogatepass"))
    except RunwrightError as error:
        raise InvalidInput(f"--runtime-vars: {error.detail}", hint=_HINT) from None
    if not isinstance(value, dict):
        raise InvalidInput("--runtime-vars must be a JSON object.", hint=_HINT)
    return value
