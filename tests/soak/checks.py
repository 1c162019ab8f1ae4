"""What must be true of a database and a ledger of effects, whatever was killed when."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Connection, text

from app.models.columns import from_us
from app.scheduler.progress import MAX_LOST
from app.store.opening import open_database
from tests import invariants

T = TypeVar("T")
Line = Mapping[str, Any]


def look(url: str, fn: Callable[[Connection], T]) -> T:
    """Read a database whether or not a service serves it."""

    async def read() -> T:
        db = open_database(url, exclusive=False)
        await db.open()
        try:
            return await db.read(fn)
        finally:
            await db.close()

    return asyncio.run(read())


@dataclass(frozen=True)
class Attempt:
    run: int
    block: str
    number: int
    outcome: str | None


@dataclass(frozen=True)
class Facts:
    """What the database says of all runs."""

    statuses: Mapping[int, str]
    reasons: Mapping[int, str | None]
    attempts: tuple[Attempt, ...]

    @property
    def lost(self) -> Mapping[int, int]:
        """By run: how often the block that was lost most was lost."""
        count: defaultdict[tuple[int, str], int] = defaultdict(int)
        for attempt in self.attempts:
            count[attempt.run, attempt.block] += attempt.outcome == "lost"
        worst: defaultdict[int, int] = defaultdict(int)
        for (run, _), number in count.items():
            worst[run] = max(worst[run], number)
        return worst


def facts(tx: Connection) -> Facts:
    rows = tx.execute(text("SELECT id, status, status_reason FROM pipeline_run")).all()
    tries = tx.execute(
        text(
            "SELECT b.pipeline_run_id, b.block_uuid, a.attempt, a.outcome FROM block_attempt a"
            " JOIN block_run b ON b.id = a.block_run_id"
        )
    )
    return Facts(
        {row.id: row.status for row in rows},
        {row.id: row.status_reason for row in rows},
        tuple(Attempt(*row) for row in tries),
    )


def invariants_of(url: str) -> list[str]:
    """Violated invariants."""
    return look(url, invariants.find)


def endings(found: Facts, acknowledged: Mapping[int, str]) -> list[str]:
    """Every run that was acknowledged is there and has ended as it should."""
    wrong = []
    for run, pipeline in acknowledged.items():
        wanted = "cancelled" if pipeline == "endless" else "completed"
        status = found.statuses.get(run, "not there")
        if status != wanted and not (status == "failed" and found.lost[run] >= MAX_LOST):
            wrong.append(f"run {run} of {pipeline} is {status} ({found.reasons.get(run)}), not {wanted}")
    return wrong


def effects(found: Facts, ledger: list[Line]) -> list[str]:
    """What was done outside agrees with what is on record inside."""
    outcomes = {(a.run, a.block, a.number): a.outcome for a in found.attempts}
    completed = {(a.run, a.block): a.number for a in found.attempts if a.outcome == "completed"}
    begun: defaultdict[tuple[int, str, int], int] = defaultdict(int)
    wrong = []
    for line in ledger:
        block = (line["run"], line["block"])
        key = (*block, line["attempt"])
        if line["kind"] == "overlap":
            wrong.append(f"two attempts of {block} at once: {line}")
        elif line["kind"] == "begin":
            begun[key] += 1
            if key not in outcomes:
                wrong.append(f"{key} ran and is not on record")
            if line["attempt"] > completed.get(block, line["attempt"]):
                wrong.append(f"{key} ran although attempt {completed[block]} had completed")
    wrong += [f"{key} ran {count} times" for key, count in begun.items() if count > 1]
    sensors = {"wait"}
    wrong += [
        f"{key} completed and never ran"
        for key, outcome in outcomes.items()
        if outcome == "completed" and not begun[key] and key[1] not in sensors
    ]
    return wrong


def running(tx: Connection) -> list[int]:
    """Runs whose blocks ran at the moment of the kill."""
    query = (
        "SELECT DISTINCT b.pipeline_run_id FROM block_run b JOIN block_attempt a ON a.block_run_id = b.id"
        " WHERE a.ended_at IS NULL AND b.wake_at IS NULL ORDER BY 1"
    )
    return list(tx.execute(text(query)).scalars())


def went_on(tx: Connection, pid: int, runs: list[int]) -> datetime | None:
    """When a service first started a block of one of these runs."""
    names = ",".join(map(str, runs)) or "0"
    query = (
        "SELECT min(a.started_at) FROM block_attempt a JOIN block_run b ON b.id = a.block_run_id"
        f" JOIN node n ON n.id = a.node_id WHERE n.pid = :pid AND b.pipeline_run_id IN ({names})"
    )
    value = tx.execute(text(query), {"pid": pid}).scalar()
    return from_us(value) if isinstance(value, int) else value


def live(tx: Connection) -> list[int]:
    """Runs that are not over."""
    return list(tx.execute(text("SELECT id FROM pipeline_run WHERE completed_at IS NULL")).scalars())
