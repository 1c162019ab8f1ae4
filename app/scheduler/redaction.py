"""Values that must not be seen in a run's log or errors: those of the secrets it has asked for. Pure."""

from collections.abc import Iterator
from dataclasses import replace
from json import loads
from typing import Any

from app.executors.base import BlockError, BlockResult, LogLine

MASK = "***"
#: A shorter value would take harmless words out of the log with it.
SHORTEST = 6


class Redactor:
    """Knows what to hide. A value of several lines is hidden line by line, as the log has it, and a JSON object
    value by value, as `json_value` gives it out.
    """

    def __init__(self) -> None:
        self._values: tuple[str, ...] = ()

    def learn(self, value: str) -> None:
        """Hide this value from now on.

        >>> hider = Redactor()
        >>> hider.learn("hunter22")
        >>> hider.text("password=hunter22!")
        'password=***!'
        """
        lines = (line.strip() for text in _texts(value) for line in (text, *text.splitlines()))
        found = {part for part in (value, *lines) if len(part) >= SHORTEST}
        # The longest first: one value may be a part of another.
        self._values = tuple(sorted(found.union(self._values), key=len, reverse=True))

    def text(self, text: str) -> str:
        """The text without the values."""
        for value in self._values:
            if value in text:
                text = text.replace(value, MASK)
        return text

    def line(self, line: LogLine) -> LogLine:
        """A log line without the values."""
        return replace(line, text=self.text(line.text)) if self._values else line

    def result(self, result: BlockResult) -> BlockResult:
        """The result of an attempt with nothing to be seen in its error."""
        if not self._values or result.error is None:
            return result
        error: BlockError = result.error
        traceback = self.text(error.traceback) if error.traceback else error.traceback
        return replace(result, error=replace(error, message=self.text(error.message), traceback=traceback))


def _texts(secret: str) -> Iterator[str]:
    """A secret, and the values in it if it is a JSON object."""
    yield secret
    if secret.lstrip().startswith("{"):
        try:
            yield from _leaves(loads(secret))
        except (ValueError, RecursionError):  # no JSON, or nothing that a block could read
            return


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _leaves(part)
    else:
        yield str(value)
