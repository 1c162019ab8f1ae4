"""`@every 90s`: slots at equal distances of elapsed time, whatever the clocks on the wall do. Pure.

The anchor is the phase, not a beginning: the slots are all the instants a whole number of steps from it, on
both sides. That no slot comes before a trigger's `start_time` is the tick's rule, the same for all intervals.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

PREFIX = "@every"
LONGEST = timedelta(days=3660)
HINT = "Write whole numbers with s, m, h or d, the longest unit first: '@every 90s', '@every 1h30m'."

_PARTS = re.compile(r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Every:
    """Slots `step` apart, one of them at `anchor`. Instants are naive UTC."""

    step: timedelta
    anchor: datetime

    def upwards(self, after: datetime, end: datetime) -> Iterator[datetime]:
        """The slots in (after, end), earliest first.

        >>> nine = datetime(2026, 3, 1, 9)
        >>> [f"{t:%H:%M}" for t in Every(timedelta(hours=7), nine).upwards(nine, datetime(2026, 3, 2))]
        ['16:00', '23:00']
        """
        number = (after - self.anchor) // self.step + 1
        while (slot := self.anchor + number * self.step) < end:
            yield slot
            number += 1

    def downwards(self, until: datetime, start: datetime) -> Iterator[datetime]:
        """The slots in (start, until], latest first."""
        number = (until - self.anchor) // self.step
        while (slot := self.anchor + number * self.step) > start:
            yield slot
            number -= 1

    def count(self, after: datetime, until: datetime) -> int:
        """How many slots lie in (after, until]; no walk."""
        return max((until - self.anchor) // self.step - (after - self.anchor) // self.step, 0)


def duration(text: str) -> timedelta:
    """The length that `90s` or `1h30m` names; a day is 24 hours. Raises ValueError with the reason.

    >>> duration("1h30m"), duration("2d")
    (datetime.timedelta(seconds=5400), datetime.timedelta(days=2))
    """
    parts = _PARTS.fullmatch(text)
    if not text or parts is None:
        raise ValueError(f"'{text[:40]}' is not a length of time")
    days, hours, minutes, seconds = (int(part or 0) for part in parts.groups())
    length = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    if not timedelta(seconds=1) <= length <= LONGEST:
        raise ValueError(f"'{text}' is {'shorter than a second' if not length else 'longer than ten years'}")
    return length
