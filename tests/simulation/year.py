"""A year of many triggers on a virtual clock: outages, pauses and edits at random, the real code on SQLite.

Afterwards the ledger is what the oracle says: no slot is missing, none is there twice, each with its fate.
"""

import random
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from app import clock
from app.models.rows import ScheduleRow
from app.pipelines.catalogue import Catalogue
from app.scheduler import catchup
from app.scheduler.tables_of import table_of
from app.scheduler.ticker import Ticker
from app.scheduler.triggers import TriggerDraft, Triggers
from app.store import nodes, pausing, schedules
from app.store.db import Database
from app.store.ids import Ids
from app.store.sql import SLOT
from tests.invariants import assert_hold
from tests.simulation.model import Definition, Oracle
from tests.store.conftest import node_row

START = datetime(2026, 1, 1, 0, 30, tzinfo=UTC)
ZONES = {0: "UTC", 9: "Asia/Tokyo", -7: "America/Phoenix"}
KINDS = ("hourly", "daily", "daily", "daily", "weekly", "monthly", "every")


class _NoAdmission:
    """Runs are made and stay: what becomes of them is not the tick's."""

    def has_news(self) -> None: ...


async def _no_launch(*_args: Any, **_more: Any) -> Any:
    raise AssertionError("nothing is launched by hand here")


@dataclass
class Year:
    """The world of one simulation."""

    db: Database
    dice: random.Random
    ticker: Ticker
    triggers: Triggers
    oracles: dict[int, Oracle]
    now: datetime = START
    #: triggers with jitter, read again when somebody has changed any
    jittered: list[ScheduleRow] | None = None

    def definition(self) -> Definition:
        dice = self.dice
        kind = dice.choice(KINDS)
        found = Definition(kind, dice.randrange(60 if kind == "hourly" else 1440))
        if kind == "every":
            found.every_h = dice.choice((5, 7, 26))
            found.anchor = START - timedelta(minutes=dice.randrange(600))
        else:
            found.offset_h = dice.choice(list(ZONES))
        found.catch_up = dice.choice(("latest", "latest", "all", "none"))
        found.limit = dice.choice((3, 40, 100))
        if dice.random() < 0.2 and found.catch_up != "none":
            found.within = timedelta(hours=dice.choice((1, 30)))
        found.weekend = dice.random() > 0.2
        if dice.random() < 0.2:
            found.jitter_s = dice.choice((30, 600))
        if dice.random() < 0.15:
            found.end = self.now + timedelta(days=dice.randrange(1, 200))
        return found

    def fields(self, said: Definition) -> dict[str, Any]:
        return {
            "schedule_interval": said.interval,
            "timezone": ZONES[said.offset_h],
            "start_time": said.anchor,
            "settings": said.settings,
        }

    async def make(self, count: int) -> None:
        for number in range(count):
            said = self.definition()
            draft = TriggerDraft(pipeline_uuid="etl", name=f"t{number}", status="active", **self.fields(said))
            row, _token = await self.triggers.create(draft)
            self.oracles[row.id] = Oracle(said, self.now)

    async def tick(self) -> datetime | None:
        if self.jittered is None:
            rows = await self.db.read(schedules.page, limit=10_000)
            self.jittered = [row for row in rows if row.settings.get("jitter_s")]
        starts = {row.id: _starts(row, self.oracles[row.id], self.now) for row in self.jittered}
        following = await self.ticker.tick()
        for key, oracle in self.oracles.items():
            oracle.tick(self.now, starts.get(key))
        return following

    async def disturb(self) -> None:
        """One thing that people or machines do."""
        self.jittered = None
        schedule_id = self.dice.choice(list(self.oracles))
        oracle = self.oracles[schedule_id]
        if self.dice.random() < 0.5:  # nothing has ticked for a while when it happens
            self.move(timedelta(seconds=self.dice.choice((40, 2400, 70_000))))
        match self.dice.choice(("outage", "pause", "pause", "edit", "all")):
            case "outage":
                self.move(timedelta(minutes=self.dice.choice((3, 90, 1500, 12_000))))
            case "all":
                await self.db.write(pausing.pause_all, clock=clock.now)
                self.move(timedelta(hours=self.dice.randrange(1, 60)))
                assert await self.ticker.tick() is None
                await self.db.write(pausing.resume_all, clock=clock.now)
            case "pause" if oracle.active:
                await self.triggers.pause(schedule_id)
                oracle.pause(self.now)
            case "pause":
                choice = self.dice.choice(("skip", "latest", "all"))
                await self.triggers.resume(schedule_id, choice)
                oracle.resume(self.now, choice)
            case "edit":
                said = self.definition()
                await self.triggers.update(schedule_id, self.fields(said))
                if self.fields(said) != self.fields(oracle.definition):
                    oracle.edit(said, self.now)

    def move(self, by: timedelta) -> None:
        self.now += by

    async def live(self, days: float, disturbances: int) -> None:
        end = START + timedelta(days=days)
        every = timedelta(days=days) / (disturbances + 1)
        disturbed = START + every
        while self.now < end:
            following = await self.tick()
            if self.now >= disturbed:
                disturbed = self.now + every
                await self.disturb()
                continue
            self.now = min(max(following or end, self.now + timedelta(seconds=1)), disturbed, end)

    async def compare(self) -> int:
        """Fail where ledger and oracle differ; returns how many slots were compared."""
        await self.tick()
        rows = await self.db.read(lambda tx: tx.execute(SLOT.select().order_by(SLOT.c.execution_date)).all())
        ledger: dict[int, dict[datetime, tuple[str, str | None]]] = {key: {} for key in self.oracles}
        for row in rows:
            found = ledger[row.pipeline_schedule_id]
            expected = self.oracles[row.pipeline_schedule_id].fate
            last = row.until or row.execution_date
            within = [slot for slot in expected if row.execution_date <= slot <= last] or [last]
            assert len(within) == row.slot_count, f"{row}: holds {len(within)} slots"
            for slot in within:
                assert slot not in found, f"trigger {row.pipeline_schedule_id}: {slot} is there twice"
                found[slot] = (row.outcome, row.reason)
        for key, oracle in self.oracles.items():
            assert ledger[key] == oracle.fate, _difference(key, ledger[key], oracle)
        return sum(map(len, ledger.values()))


def _difference(key: int, found: dict[Any, Any], oracle: Oracle) -> str:
    slots = sorted(s for s in {*found, *oracle.fate} if found.get(s) != oracle.fate.get(s))
    lines = [f"  {slot}: ledger {found.get(slot)}, oracle {oracle.fate.get(slot)}" for slot in slots[:5]]
    return f"trigger {key}, {oracle.definition}: {len(slots)} differ\n" + "\n".join(lines)


def _starts(row: ScheduleRow, oracle: Oracle, now: datetime) -> dict[datetime, datetime]:
    """When the slots under way start by the trigger's jitter, whose own tests are elsewhere."""
    if not oracle.definition.jitter_s:
        return {}
    table = table_of(row, week_start="sunday")
    late = oracle.definition.slots(max(oracle.settled, now - timedelta(days=2)), now)
    return {slot: catchup.starts_at(row, table, slot) for slot in late}


def project(folder: Path) -> Path:
    """A project with one pipeline of one block."""
    place = folder / "pipelines" / "etl"
    place.mkdir(parents=True)
    (folder / "custom").mkdir()
    (folder / "metadata.yaml").write_text("name: project\n")
    (folder / "custom" / "a.py").write_text("# never run here\n")
    text = "uuid: etl\nname: etl\ntype: python\nblocks:\n- {uuid: a, type: custom, language: python}\n"
    (place / "metadata.yaml").write_text(text)
    return folder


async def simulate(
    db: Database, folder: Path, *, seed: int, triggers: int, days: float, disturbances: int
) -> int:
    """Live through it; returns how many slots there were. Raises AssertionError where the ledger is wrong."""
    catalogue = Catalogue(project(folder), {}, catchup.judge)
    catalogue.refresh()
    dice = random.Random(seed)
    me = replace(node_row("simulated"), lease_until=START + timedelta(days=9999))
    await db.write(nodes.register, me)
    ticker = Ticker(
        db=db,
        catalogue=catalogue,
        node_id=me.id,
        intake=_NoAdmission(),  # type: ignore[arg-type]
        run_ids=Ids(db, "pipeline_run"),
        block_ids=Ids(db, "block_run"),
    )
    service = Triggers(db=db, catalogue=catalogue, node_id=me.id, launch=_no_launch)
    year = Year(db, dice, ticker, service, {})
    clock.use(lambda: year.now)
    try:
        await year.make(triggers)
        await year.live(days, disturbances)
        count = await year.compare()
        await assert_hold(db)
        return count
    finally:
        clock.use(None)
