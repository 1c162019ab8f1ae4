"""For how long the past is kept, and how slowly it is forgotten. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeVar

from app.models.pipeline import Keep
from app.settings import Settings

N = TypeVar("N", int, float)
#: Seconds that a batch may take of the one writer, and what is aimed at so that few are longer.
MOST_S, AIM_S = 0.020, 0.008
#: The part of the time that pruning takes at most; the rest is everybody else's.
SHARE: Final = 0.25
#: Batches begin small, and never become larger than this.
FIRST, LARGEST = 10, 1_000
_LONGEST_PAUSE_S = 2.0


@dataclass(frozen=True, slots=True)
class Kept:
    """What holds for one pipeline. None and 0 are for ever."""

    runs: timedelta | None
    newest: int
    logs: timedelta | None
    outputs: timedelta | None


def kept(settings: Settings, keep: Keep, *, mage_s: float | None = None) -> Kept:
    """A pipeline's own word over the service's settings, key by key.

    `mage_s` is the project's `variables_retention_period`: it holds where nobody says how long outputs are kept.
    """
    outputs = _first(keep.outputs_days, settings.keep_outputs_days)
    if keep.outputs_days is None and not settings.keep_outputs_days and mage_s:
        outputs = mage_s / 86_400
    return Kept(
        runs=days(_first(keep.runs_days, settings.keep_runs_days)),
        newest=_first(keep.runs, settings.keep_runs_per_pipeline),
        logs=days(_first(keep.logs_days, settings.keep_logs_days)),
        outputs=days(outputs),
    )


def _first(own: N | None, general: N) -> N:
    return general if own is None else own


def days(number: float) -> timedelta | None:
    """That many days; None for 0, which is for ever.

    >>> days(0.5), days(0)
    (datetime.timedelta(seconds=43200), None)
    """
    return timedelta(days=min(number, 36_500)) if number else None


def ago(now: datetime, age: timedelta | None) -> datetime | None:
    """The moment that lies so far back."""
    return None if age is None else now - age


def next_size(size: int, count: int, took_s: float) -> int:
    """How many rows the next batch takes, after `count` of up to `size` took so long: up by doubling, down by measure.

    A batch that was not full says nothing of larger ones. One that was quick is never too large, though each costs
    something for itself: a size of 1 that takes 5 ms would be one for ever.

    >>> next_size(10, 10, 0.001), next_size(100, 100, 0.009), next_size(100, 100, 0.08), next_size(1, 1, 0.5)
    (20, 88, 10, 1)
    >>> next_size(1000, 1000, 0.001), next_size(100, 3, 0.001), next_size(100, 3, 0.012), next_size(1, 1, 0.005)
    (1000, 100, 2, 2)
    """
    by_measure = int(count * AIM_S / max(took_s, 1e-6))
    if took_s < AIM_S:
        by_measure = size if count < size else max(by_measure, size + 1)
    return max(1, min(by_measure, 2 * size, LARGEST))


def pause(took_s: float, share: float = SHARE) -> float:
    """Seconds to wait after a batch that took so long, so that all of them take no more than `share` of the time.

    >>> round(pause(0.02), 3), pause(5.0), pause(0.02, 1.0)
    (0.06, 2.0, 0.0)
    """
    return min(took_s * (1 / share - 1), _LONGEST_PAUSE_S)


class Pace:
    """The size of the next batch of one kind."""

    def __init__(self) -> None:
        self.size = FIRST
        #: the longest batch so far
        self.longest_s = 0.0

    def learn(self, count: int, took_s: float) -> None:
        """Be told how many rows the last one had, and how long it took."""
        self.longest_s = max(self.longest_s, took_s)
        self.size = next_size(self.size, count, took_s)
