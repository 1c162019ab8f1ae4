"""Rows of triggers as somebody writes them by hand into the table, most of them wrong."""

import random
from datetime import timedelta
from typing import Any

from app import clock
from app.store.db import Tx
from app.store.sql import REVISION, SCHEDULE


def written(schedule_id: int, interval: str | None = "@hourly", **values: Any) -> dict[str, Any]:
    """A trigger as a hand would write it."""
    now = clock.now()
    return {
        "id": schedule_id,
        "name": f"by hand {schedule_id}",
        "pipeline_uuid": "etl",
        "schedule_type": "time",
        "schedule_interval": interval,
        "timezone": None,
        "status": "active",
        "start_time": None,
        "variables": {},
        "settings": {},
        "tags": [],
        "managed_by": "api",
        "revision": 1,
        "cursor_at": None,
        "next_fire_at": None,
        "created_at": now,
        "updated_at": now,
        **values,
    }


_NASTY: list[Any] = [
    None,
    0,
    -1,
    1e308,
    "",
    "x",
    "\u2028",
    "é" * 300,
    [],
    [[]],
    {},
    {"a": {"b": []}},
    True,
    "1d",
]
_INTERVALS = [
    "",
    "x",
    "* *",
    "61 * * * *",
    "@every",
    "@every 0s",
    "@every 1x",
    "0 0 30 2 *",
    "* * * * * * * *",
]
_ZONES = ["", "Mars/Olympus", "../etc/passwd", "right/UTC", "é", "UTC+25"]
_KEYS = ["catch_up", "catch_up_within", "jitter_s", "end_time", "blackouts", "timeout", "dst_gap", "unknown"]


def malformed(dice: random.Random, schedule_id: int) -> dict[str, Any]:
    """A definition with one thing wrong in it at least."""
    wrong = {
        "schedule_interval": lambda: dice.choice(_INTERVALS),
        "timezone": lambda: dice.choice(_ZONES[1:]),
        "settings": lambda: {"unknown": dice.choice(_NASTY), dice.choice(_KEYS): dice.choice(_NASTY)},
        "variables": lambda: dice.choice(["x", [], 7]),
        "tags": lambda: dice.choice(["x", {}, 7]),
        "pipeline_uuid": lambda: dice.choice(["", "deleted", "../etl", "é"]),
    }
    chosen = dice.sample(sorted(wrong), dice.randrange(1, 4))
    then = clock.now() - timedelta(hours=2)
    values = {key: wrong[key]() for key in chosen}
    return written(schedule_id, **{"cursor_at": then, "next_fire_at": then, **values})


def forget(tx: Tx) -> None:
    """Rows that no revision stands behind are nothing that the checker could compute again."""
    tx.execute(REVISION.delete().where(REVISION.c.schedule_id >= 10_000))
    tx.execute(SCHEDULE.delete().where(SCHEDULE.c.id >= 10_000))
