"""The service's own log: one clean line an event on stderr, whichever library an event comes through."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog


def configure_logging(level: str) -> None:
    """Send both `logging` and `structlog` to stderr as lines of the same form."""
    logging.basicConfig(
        level=level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)-7s %(message)s", force=True
    )
    for library in ("uvicorn", "apscheduler", "alembic", "asyncio"):
        logging.getLogger(library).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.processors.format_exc_info,
            _line,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def _line(_logger: object, _name: str, event: MutableMapping[str, Any]) -> str:
    """An event and its values on one line; a traceback, if there is one, below.

    >>> _line(None, "info", {"event": "worker ended", "pid": 7})
    'worker ended pid=7'
    """
    text, trace = event.pop("event"), event.pop("exception", None)
    line = " ".join([str(text), *(f"{name}={value}" for name, value in event.items())])
    return f"{line}\n{trace}" if trace else line
