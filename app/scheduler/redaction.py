"""Values that must not be seen in a run's log or errors: those of the secrets it has asked for. Pure."""

from dataclasses import replace

from app.executors.base import BlockError, BlockResult, LogLine

MASK = "***"
#: A shorter value would take harmless words out of the log with it.
SHORTEST = 6


class Redactor:
    """Knows what to hide. A value of several lines is hidden line by line, as the log has it."""

    def __init__(self) -> None:
        self._values: tuple[str, ...] = ()

    def learn(self, value: str) -> None:
        """Hide this value from now on.

        >>> hider = Redactor()
        >>> hider.learn("hunter22")
        >>> hider.text("password=hunter22!")
        'password=***!'
        """
        found = {part for part in (value, *map(str.strip, value.splitlines())) if len(part) >= SHORTEST}
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
