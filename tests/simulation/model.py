"""The oracle: what should become of every slot, told in a few lines of arithmetic that know nothing of the product.

Only zones without daylight saving: what the clocks do is tested elsewhere, beside a brute-force search.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

GRACE = timedelta(seconds=60)
SEARCHED = 1000


@dataclass
class Definition:
    """What a trigger says, and the same in the words of the product."""

    kind: str
    #: minutes from midnight (hourly: of the hour), local
    minute: int
    offset_h: int = 0
    every_h: int = 0
    anchor: datetime | None = None
    end: datetime | None = None
    catch_up: str = "latest"
    limit: int = 100
    within: timedelta | None = None
    weekend: bool = True
    jitter_s: int = 0

    @property
    def interval(self) -> str:
        hour, minute = divmod(self.minute, 60)
        return {
            "hourly": f"{minute} * * * *",
            "daily": f"{minute} {hour} * * *",
            "weekly": f"{minute} {hour} * * 3",
            "monthly": f"{minute} {hour} 1 * *",
            "every": f"@every {self.every_h}h",
        }[self.kind]

    @property
    def settings(self) -> dict[str, object]:
        found: dict[str, object] = {"catch_up": self.catch_up}
        if self.catch_up == "all":
            found["catch_up_limit"] = self.limit
        if self.within is not None and self.catch_up != "none":
            found["catch_up_within"] = self.within.total_seconds()
        if self.end is not None:
            found["end_time"] = self.end.isoformat()
        if not self.weekend:
            found["blackouts"] = [{"weekdays": ["sat", "sun"]}]
        if self.jitter_s:
            found["jitter_s"] = self.jitter_s
        return found

    def slots(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """The slots in (after, until]."""
        if self.end is not None:
            until = min(until, self.end)
        for slot in self._all(after, until):
            if after < slot <= until:
                yield slot

    def _all(self, after: datetime, until: datetime) -> Iterator[datetime]:
        shift = timedelta(hours=self.offset_h)
        if self.kind == "every":
            assert self.anchor is not None
            step = timedelta(hours=self.every_h)
            slot = self.anchor + ((after - self.anchor) // step) * step
            while slot <= until:
                yield slot
                slot += step
            return
        local = after + shift
        at = datetime(local.year, local.month, local.day, tzinfo=UTC) + timedelta(minutes=self.minute)
        if self.kind == "hourly":
            at = datetime(local.year, local.month, local.day, local.hour, self.minute % 60, tzinfo=UTC)
        while at - shift <= until:
            if (self.kind != "weekly" or at.isoweekday() == 3) and (self.kind != "monthly" or at.day == 1):
                yield at - shift
            at += timedelta(hours=1) if self.kind == "hourly" else timedelta(days=1)

    def is_black(self, slot: datetime) -> bool:
        return not self.weekend and (slot + timedelta(hours=self.offset_h)).isoweekday() > 5


@dataclass
class Oracle:
    """One trigger: what it says now, up to where its slots are settled, and what became of them."""

    definition: Definition
    settled: datetime
    active: bool = True
    fate: dict[datetime, tuple[str, str | None]] = field(default_factory=dict)

    def tick(self, now: datetime, starts_at: dict[datetime, datetime] | None = None) -> None:
        """What a look at `now` settles by the trigger's own catch_up."""
        if not self.active:
            return
        late = [s for s in self.definition.slots(self.settled, now) if (starts_at or {}).get(s, s) <= now]
        if late:
            self._settle(late, now, self.definition.catch_up, ("missed", "catch_up"), starts_at or {})
            self.settled = late[-1]

    def pause(self, now: datetime) -> None:
        self._drop(now, ("skipped", "paused"))
        self.active = False

    def resume(self, now: datetime, choice: str) -> None:
        """`choice` decides about the slots of the pause."""
        missed = list(self.definition.slots(self.settled, now))
        self._settle(missed, now, choice, ("skipped", "paused"), {})
        self.settled, self.active = now, True

    def edit(self, definition: Definition, now: datetime) -> None:
        self._drop(now, ("missed", "edited") if self.active else ("skipped", "paused"))
        self.definition = definition

    def _drop(self, now: datetime, fate: tuple[str, str]) -> None:
        self.fate.update(dict.fromkeys(self.definition.slots(self.settled, now), fate))
        self.settled = max(now, self.settled)

    def _settle(
        self,
        late: list[datetime],
        now: datetime,
        mode: str,
        dropped: tuple[str, str],
        starts_at: dict[datetime, datetime],
    ) -> None:
        said = self.definition
        older = set(late[:-SEARCHED])  # counted without a look whether a blackout covers them
        free = [slot for slot in late[-SEARCHED:] if not said.is_black(slot)]
        limit = said.limit if said.catch_up == "all" else 100
        count = {"all": limit, "skip": 0}.get(mode, 1)
        run = free[-count:] if count else []
        on_time = {slot for slot in run if now - starts_at.get(slot, slot) <= GRACE}
        if mode == "none":
            run = [slot for slot in run if slot in on_time]
        elif dropped[1] == "catch_up" and said.within is not None:
            run = [slot for slot in run if slot in on_time or now - slot <= said.within]
        for slot in late:
            if slot in run:
                self.fate[slot] = ("run", None)
            elif slot not in older and said.is_black(slot) and mode != "skip":
                self.fate[slot] = ("skipped", "blackout")
            else:
                self.fate[slot] = dropped
