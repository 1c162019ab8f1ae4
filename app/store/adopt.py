"""Triggers that bring their ids from elsewhere: what is here already, and how one gets another id."""

from dataclasses import dataclass

from sqlalchemy import Connection, delete, literal, select, update

from app.models.rows import ScheduleRow
from app.store import schedules
from app.store.sql import REVISION, RUN, SCHEDULE, SLOT


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A trigger that is here. `used`: it has runs or slots, so its id is for good."""

    row: ScheduleRow
    digest: str | None
    token_hash: str | None
    used: bool


@dataclass(frozen=True, slots=True)
class Holdings:
    """Every trigger that is here, and the ids of those that are deleted."""

    live: tuple[Held, ...] = ()
    deleted: frozenset[int] = frozenset()


def holdings(tx: Connection) -> Holdings:
    """What is here already."""
    used = set(tx.execute(select(SLOT.c.pipeline_schedule_id).distinct()).scalars())
    used |= set(tx.execute(select(RUN.c.pipeline_schedule_id).distinct()).scalars())
    live = tuple(
        Held(row=row, digest=digest, token_hash=token_hash, used=row.id in used)
        for row, digest, token_hash in schedules.live(tx)
    )
    gone = select(SCHEDULE.c.id).where(SCHEDULE.c.deleted_at.is_not(None))
    return Holdings(live, frozenset(tx.execute(gone).scalars()))


def change_id(tx: Connection, old_id: int, new_id: int) -> None:
    """Give a trigger that was never used a free id. Its revisions come with it."""
    # Rows refer to it, and a live name is unique: so first a copy that counts as deleted, last the original goes.
    copied = [c for c in SCHEDULE.c if c.name not in ("id", "deleted_at")]
    source = select(literal(new_id), SCHEDULE.c.updated_at, *copied).where(SCHEDULE.c.id == old_id)
    names = ["id", "deleted_at", *(c.name for c in copied)]
    tx.execute(SCHEDULE.insert().from_select(names, source))
    tx.execute(update(REVISION).where(REVISION.c.schedule_id == old_id).values(schedule_id=new_id))
    tx.execute(delete(SCHEDULE).where(SCHEDULE.c.id == old_id))
    tx.execute(update(SCHEDULE).where(SCHEDULE.c.id == new_id).values(deleted_at=None))
