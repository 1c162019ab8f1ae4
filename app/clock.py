"""The only place that asks what time it is.

Every stamp in the database comes from :func:`now`; every duration from :func:`monotonic`. On Postgres the
database's clock is the reference: :func:`adjust` is told at each heartbeat how far the host is from it.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

_offset = timedelta(0)
_source: Callable[[], datetime] | None = None


def now() -> datetime:
    """The present instant, aware, in UTC, with microseconds."""
    if _source is not None:
        return _source()
    return datetime.now(UTC) + _offset


def monotonic() -> float:
    """Seconds of a clock that never steps; only differences mean anything."""
    return time.monotonic()


def adjust(offset: timedelta) -> None:
    """Shift :func:`now` by `offset` (reference clock minus host clock)."""
    global _offset
    _offset = offset


def host_now() -> datetime:
    """The host's own wall clock, uncorrected: only for measuring the offset."""
    return datetime.now(UTC)


def use(source: Callable[[], datetime] | None) -> None:
    """Replace the source of :func:`now` (tests, simulations); None restores the host's clock."""
    global _source
    _source = source
