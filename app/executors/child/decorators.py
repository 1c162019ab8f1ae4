"""Block decorators: each returns the function as it is and notes it in the recorder of the file being executed."""

from __future__ import annotations

import sys

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


CALLBACK_STATUSES = ("success", "failure", "cancelled")


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

        chosen = self._callback if name == "callback" else decorate
        decorate.__name__ = decorate.__qualname__ = name
        return chosen

    def _callback(self, status: Any = "success") -> Any:
        """`@callback`, `@callback('success')`, `'failure'` or `'cancelled'`; any other status raises, as in Mage."""
        if callable(status):
            return self._callback("success")(status)
        if status not in CALLBACK_STATUSES:
            told = ", ".join(CALLBACK_STATUSES)
            raise ValueError("@callback(%r): the status must be one of %s" % (status, told))

        def decorate(function: Any) -> Any:
            self.found.setdefault("callback", []).append((status, function))
            return function

        return decorate


def imported(name: str) -> Any:
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
