"""The only place that asks what time it is.

Every stamp in the database comes from :func:`now`; every duration from :func:`monotonic`. On Postgres the
database's clock is the reference: :func:`anchor` is told at each heartbeat what it showed, and :func:`now` goes
on from there by a clock that never steps. A host whose clock is set wrong decides nothing by it.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

_offset = timedelta(0)
_anchor: tuple[datetime, float] | None = None
_source: Callable[[], datetime] | None = None


def now() -> datetime:
    """The present instant, aware, in UTC, with microseconds."""
    if _source is not None:
        return _source()
    if _anchor is not None:
        reference, at = _anchor
        return reference + timedelta(seconds=steady() - at)
    return datetime.now(UTC) + _offset


_boottime = partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else None


def monotonic() -> float:
    """Seconds of a clock that never steps; only differences mean anything."""
    return time.monotonic()


def steady() -> float:
    """Seconds of a clock that never steps and goes on while the host is suspended: for leases.

    Its zero is not :func:`monotonic`'s.
    """
    return _boottime() if _boottime is not None else time.monotonic()


def anchor(reference: datetime, at: float) -> None:
    """Let :func:`now` go on from `reference`, which the reference clock showed at `at` of :func:`steady`."""
    global _anchor
    _anchor = reference, at


def adjust(offset: timedelta) -> None:
    """Shift :func:`now` by `offset` from the host's clock, and forget any anchor."""
    global _offset, _anchor
    _offset, _anchor = offset, None


def host_now() -> datetime:
    """The host's own wall clock, uncorrected: only for measuring the offset."""
    return datetime.now(UTC)


def use(source: Callable[[], datetime] | None) -> None:
    """Replace the source of :func:`now` (tests, simulations); None restores the host's clock."""
    global _source
    _source = source
