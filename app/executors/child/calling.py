"""Calling the functions of a block: which arguments they get, and what their return value means."""

from __future__ import annotations

from . import faults

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_FUNCTION = type(lambda: None)
_GENERATOR = type(_ for _ in ())
_VARARGS, _VARKEYWORDS, _COROUTINE = 0x04, 0x08, 0x80


class Signature:
    """How many positional arguments a callable needs and takes, and whether it has `*args`, `**kwargs`."""

    def __init__(self, function: Any) -> None:
        while hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        if type(function) is not _FUNCTION:
            self._inspect(function)
            return
        code = function.__code__
        self.most = code.co_argcount
        self.least = self.most - len(function.__defaults__ or ())
        self.varargs = bool(code.co_flags & _VARARGS)
        self.keywords = bool(code.co_flags & _VARKEYWORDS)

    def _inspect(self, function: Any) -> None:
        # Only for what is no plain function: `inspect` costs a fresh worker 10 ms and 3 MiB.
        import inspect

        parameters = list(inspect.signature(function).parameters.values())
        places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        self.most = len(places)
        self.least = len([p for p in places if p.default is p.empty])
        self.varargs = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        self.keywords = any(p.kind is p.VAR_KEYWORD for p in parameters)


def is_coroutine_function(function: Any) -> bool:
    """Whether it is an `async def`, also under decorators that use functools.wraps."""
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return type(function) is _FUNCTION and bool(function.__code__.co_flags & _COROUTINE)


def arguments(
    function: Any, inputs: list[Any], kwargs: dict[str, Any], lenient: bool = False
) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of a block's function: the inputs in order; kwargs only if it has `**kwargs` (Mage).

    `lenient` (sensors, preprocessers): without `*args`, a function that names no parameter gets no inputs.
    """
    shape = Signature(function)
    if lenient and not shape.varargs and shape.most == 0:
        inputs = []
    if len(inputs) < shape.least or (len(inputs) > shape.most and not shape.varargs):
        raise faults.WrongArguments(_mismatch(function, shape, len(inputs)))
    return inputs, (kwargs if shape.keywords else {})


def test_arguments(
    function: Any, outputs: list[Any], kwargs: dict[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of a function under `@test`: as many outputs as it takes, None for one that is not there."""
    shape = Signature(function)
    given = list(outputs) if shape.varargs else list(outputs[: shape.most])
    given += [None] * (shape.least - len(given))
    return given, (kwargs if shape.keywords else {})


def as_outputs(value: Any) -> list[Any]:
    """A return value as the outputs of the block: None is none, a tuple or a list is one each (Mage)."""
    if value is None:
        return []
    if type(value) is _GENERATOR:  # what it yields are the parts of one output
        return [list(value)]
    if type(value) in (tuple, list):
        return list(value)
    return [value]


def resolve(value: Any) -> Any:
    """The value, or what it comes to if it is awaitable (`async def` blocks), on a loop of its own."""
    if not hasattr(type(value), "__await__"):
        return value
    import asyncio

    async def wait() -> Any:
        return await value

    return asyncio.run(wait())


def call(function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Call a function of the block and wait for it if it is asynchronous."""
    return resolve(function(*args, **kwargs))


def _mismatch(function: Any, shape: Signature, given: int) -> str:
    name = getattr(function, "__name__", "the function")
    takes = str(shape.most) if shape.least == shape.most else "%d to %d" % (shape.least, shape.most)
    if shape.varargs:
        takes = "at least %d" % shape.least
    way_out = "add *args to it, or change upstream_blocks"
    return "%s() takes %s input(s), but the block has %d upstream block(s): %s" % (
        name,
        takes,
        given,
        way_out,
    )
