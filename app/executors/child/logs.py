"""The `logger` that a block finds in its kwargs: its lines reach the block's log with their level."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

#: what stands before a logger's line in a worker's stdout; then one letter for the level
MARK = "\x1eRW"
LEVELS = {"D": "debug", "I": "info", "W": "warning", "E": "error"}


def preload() -> None:
    """Import `logging` ahead of the first block: 8 ms that an idle worker has."""
    _handler_class()


def make_logger(name: str, write: Callable[[str, str], Any]) -> Any:
    """A `logging.Logger` that stands alone and calls `write(level letter, line)` for every line."""
    import logging

    logger = logging.Logger(name, logging.DEBUG)
    logger.addHandler(_handler_class()(write))
    return logger


_classes: list[Any] = []


def _handler_class() -> Any:
    """The handler's class, made once `logging` has been imported."""
    if _classes:
        return _classes[0]
    import logging

    class Lines(logging.Handler):
        def __init__(self, write: Callable[[str, str], Any]) -> None:
            super().__init__()
            self._write = write

        def emit(self, record: logging.LogRecord) -> None:
            try:
                for line in self.format(record).split("\n"):
                    self._write(_letter(record.levelno), line)
            except RecursionError:
                raise
            except (
                Exception
            ):  # logging's own rule: a record that cannot be formatted does not end the program
                self.handleError(record)

    _classes.append(Lines)
    return Lines


def _letter(level: int) -> str:
    if level >= 40:
        return "E"
    if level >= 30:
        return "W"
    return "I" if level >= 20 else "D"
