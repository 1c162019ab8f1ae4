"""What a test puts in the place of a block or a hook: a value that it returns, an error that it raises, a function."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import CodeType
from typing import Any


@dataclass(slots=True)
class StandIn:
    """Has the face of a block's file (`BlockFile`); its code decorates one function of the test."""

    project: str
    file: str
    decorator: str
    function: Callable[..., Any]
    hash: str = "stand-in"

    @classmethod
    def of(cls, call: Mapping[str, Any], value: Any) -> "StandIn":
        """What stands in for the block or hook of a call."""
        hook = call["hook"] or {}
        decorator = f"callback({hook['status']!r})" if hook.get("status") else call["type"]
        return cls(call["project"], call["file"], decorator, _as_function(value))

    @property
    def path(self) -> str:
        """Where the block's own file is."""
        return os.path.join(self.project, self.file)  # noqa: PTH118

    def compile(self) -> CodeType:
        """Code that hands the function to the decorator."""
        _given.append(self.function)
        code = f"from app.testing.standins import take as __take__\n{self.decorator}(__take__())\n"
        return compile(code, "<stand-in>", "exec")


_given: list[Callable[..., Any]] = []


def take() -> Callable[..., Any]:
    """The function of the stand-in that is being executed."""
    return _given.pop()


def _as_function(value: Any) -> Callable[..., Any]:
    if isinstance(value, BaseException) or (isinstance(value, type) and issubclass(value, BaseException)):
        return _raising(value)
    return value if callable(value) else lambda *args, **kwargs: value


def _raising(error: Any) -> Callable[..., Any]:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise error

    return fail
