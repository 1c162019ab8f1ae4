"""The pause of everything: while it holds, no slot is decided on any node. It is a row, so it outlives restarts."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import orjson
from sqlalchemy import Connection, select, text, update

from app.models.states import ScheduleStatus
from app.store.sql import META, SCHEDULE, insert

_KEY: Final = "paused"
#: Ticks share it, whoever pauses has it alone: once he is answered nothing fires.
_LOCK: Final = "hashtextextended('paused', 0)"


_PAUSED: Final = select(META.c.value).where(META.c.key == _KEY)  # asked every second


@dataclass(frozen=True, slots=True)
class Pause:
    """Since when everything is paused, and why."""

    at: datetime
    note: str | None = None


def paused(tx: Connection) -> Pause | None:
    """The pause that holds now, None when there is none."""
    value = tx.execute(_PAUSED).scalar()
    if value is None:
        return None
    found = orjson.loads(value)
    return Pause(datetime.fromisoformat(found["at"]), found.get("note"))


def paused_for_tick(tx: Connection) -> bool:
    """Whether a tick must not decide; a pause that comes meanwhile waits for this transaction."""
    if tx.dialect.name == "postgresql":
        tx.execute(text(f"SELECT pg_advisory_xact_lock_shared({_LOCK})"))
    return tx.execute(select(META.c.key).where(META.c.key == _KEY)).first() is not None


def pause_all(tx: Connection, note: str | None = None, *, clock: Callable[[], datetime]) -> Pause:
    """Pause everything; a pause that holds already is returned unchanged. Runs that exist go on.

    `clock` is asked for the present instant once the ticks that are under way have ended.
    """
    _alone(tx)
    if (known := paused(tx)) is not None:
        return known
    pause = Pause(clock(), note)
    value = orjson.dumps({"at": pause.at.isoformat(), "note": note}).decode()
    tx.execute(insert(tx, META).values(key=_KEY, value=value))
    return pause


def resume_all(tx: Connection, missed: str | None = None, *, clock: Callable[[], datetime]) -> int:
    """End the pause; how many triggers have slots that came due.

    Without `missed` each trigger's own `catch_up` decides about them, as after an outage; else skip, latest or
    all is what becomes of them. `clock` as for :func:`pause_all`: a slot that comes due in the wait is one of them.
    """
    _alone(tx)
    if paused(tx) is None:
        return 0
    now = clock()
    tx.execute(META.delete().where(META.c.key == _KEY))
    due = (
        SCHEDULE.c.next_fire_at <= now,
        SCHEDULE.c.status == ScheduleStatus.ACTIVE,
        SCHEDULE.c.deleted_at.is_(None),
    )
    if missed is None:
        return len(tx.execute(select(SCHEDULE.c.id).where(*due)).all())
    asked = update(SCHEDULE).where(*due).values(missed_policy=missed, missed_until=now)
    return tx.execute(asked).rowcount


def _alone(tx: Connection) -> None:
    if tx.dialect.name == "postgresql":
        tx.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
