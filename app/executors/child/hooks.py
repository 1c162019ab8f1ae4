"""Conditions and callbacks: which functions of a hook's file are called, and with what (as in Mage)."""

from __future__ import annotations

from . import asking, calling, faults

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .loading import Loaded

#: the older decorators, and the status that they stand for
_LEGACY = {"on_success": "success", "on_failure": "failure"}


class BlockFailed(Exception):
    """What a block failed with, as its failure callbacks get it in `kwargs['__error']`."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__("%s: %s" % (error.get("type"), error.get("message")))
        self.__dict__.update(error)


def run(
    loaded: Loaded, hook: dict[str, Any], inputs: list[tuple[str, Any]], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Call the functions that are meant; the result of the attempt as a mapping."""
    kwargs.update(parent_block_uuid=hook["parent"], pipeline_run=asking.PipelineRun(hook["run"]))
    if loaded.kind == "condition":
        return _conditions(loaded, [value for _uuid, value in inputs], kwargs)
    if hook["error"] is not None:
        kwargs["__error"] = BlockFailed(hook["error"])
    for function in _told(loaded, hook["status"]):
        _callback(function, hook["status"], inputs, dict(kwargs))
    for name, status in _LEGACY.items():
        if status == hook["status"]:
            for function in loaded.functions(name):
                calling.call(function, [], kwargs if calling.Signature(function).keywords else {})
    return {"outcome": "completed", "outputs": []}


def _conditions(loaded: Loaded, values: list[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """All of them must hold; the first that does not decides."""
    found = loaded.functions("condition")
    if not found:
        raise faults.NoFunction("no function in %s is decorated with @condition" % loaded.file.file)
    for function in found:
        args, named = calling.arguments(function, values, kwargs, lenient=True)
        if not calling.call(function, args, named):
            return {"outcome": "completed", "outputs": [], "value_false": True}
    return {"outcome": "completed", "outputs": []}


def _told(loaded: Loaded, status: str) -> list[Any]:
    return [function for wanted, function in loaded.functions("callback") if wanted == status]


def _callback(function: Any, status: str, inputs: list[tuple[str, Any]], kwargs: dict[str, Any]) -> None:
    """The parent's output is the first argument of a function that takes one, else in `kwargs['__input']`."""
    shape = calling.Signature(function)
    data = inputs if status != "cancelled" else []
    args: list[Any] = []
    if shape.most or shape.varargs:
        args = [value for _uuid, value in data] or [None] * min(shape.least, 1)
    else:
        kwargs["__input"] = dict(data)
    if len(args) < shape.least:
        told = (getattr(function, "__name__", "the callback"), shape.least)
        raise faults.WrongArguments("%s() takes %d arguments; a callback gets the output of its block" % told)
    calling.call(function, args[: None if shape.varargs else shape.most], kwargs if shape.keywords else {})
