"""Mage's own database, read-only: its triggers with their tags, and its event matchers. SQLite and Postgres.

Mage: `pipeline_schedule`, `tag`, `tag_association`, `event_matcher`, `backfill`. Enumerations are native types
that hold the names (`TIME`) or plain text; JSON comes as text or as values; times of SQLite are naive and mean
UTC. Columns and tables that came with later versions of Mage may be absent.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
from sqlalchemy import URL, Connection, Select, column, inspect, make_url, select, table
from sqlalchemy.exc import ArgumentError, DBAPIError

from app.errors import InvalidInput, NotFound, RunwrightError
from app.store.db import Database
from app.store.opening import open_database

_NEEDED = frozenset({"id", "name", "pipeline_uuid", "schedule_type", "schedule_interval", "status"})
_LATER = (
    *("description", "start_time", "variables", "sla", "token"),
    *("repo_path", "settings", "global_data_product_uuid"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MageTrigger:
    """A row of `pipeline_schedule`. `schedule_type` and `status` are in lower case, times aware and in UTC."""

    id: int
    name: str
    pipeline_uuid: str
    schedule_type: str | None
    schedule_interval: str | None = None
    status: str = "inactive"
    description: str | None = None
    start_time: datetime | None = None
    variables: Any = None
    settings: Any = None
    sla: int | None = None
    token: str | None = None
    repo_path: str | None = None
    global_data_product_uuid: str | None = None
    tags: tuple[str, ...] = ()
    #: an `@once` trigger that has had a run: Mage never fires it again
    has_run: bool = False
    #: the backfill that made this trigger for itself
    backfill: str | None = None
    #: what of the row could not be understood
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MageMatcher:
    """An event pattern and the triggers it starts."""

    id: int
    name: str
    event_type: str | None
    pattern: Any
    trigger_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MageRows:
    """What is taken over from a database of Mage, in the order of the ids."""

    triggers: tuple[MageTrigger, ...] = ()
    matchers: tuple[MageMatcher, ...] = ()
    #: the greatest id that a trigger has
    last_id: int = 0


async def read_database(url: str) -> MageRows:
    """Everything of Mage's database that can be taken over. Never writes.

    Raises NotFound when there is no such file, InvalidInput when it is none of Mage's, StoreUnavailable.
    """
    database, schema = _open(url)
    try:
        await database.open()
        return await database.read(read, schema=schema)
    except (DBAPIError, asyncpg.PostgresError, OSError) as error:
        cause = str(getattr(error, "orig", None) or error)
        raise RunwrightError(f"Mage's database cannot be read: {cause}") from error
    finally:
        await database.close()


def _open(url: str) -> tuple[Database, str | None]:
    """The database behind a URL as Mage writes it, and the schema that it names."""
    try:
        parts = make_url(url)
    except (ArgumentError, ValueError):
        raise InvalidInput(
            "The URL of Mage's database is no URL.",
            hint="It is like sqlite:///path/mage-ai.db or postgresql://user@host/database.",
        ) from None
    if parts.get_backend_name() != "sqlite":
        return _open_server(parts)
    file = Path(parts.database or "")
    if not file.is_file():
        raise NotFound(f"There is no database file '{file}'.", hint="Mage's is called mage-ai.db as a rule.")
    read_only = f"sqlite:///file:{quote(str(file.resolve()))}?mode=ro&uri=true"
    return open_database(read_only, exclusive=False), None


def _open_server(parts: URL) -> tuple[Database, str | None]:
    """Mage's driver is psycopg2: what its URLs tell that driver is said in asyncpg's words."""
    given = {key: value if isinstance(value, str) else value[-1] for key, value in parts.query.items()}
    kept: dict[str, str] = {key: value for key, value in given.items() if key in ("host", "port")}
    if "sslmode" in given:
        kept["sslmode"] = given["sslmode"]
    _, found, path = given.get("options", "").replace(" ", "").partition("search_path=")
    if parts.get_backend_name() in ("postgresql", "postgres"):
        parts = parts.set(drivername="postgresql", query=kept)
    schema = path.split(",")[0].strip('"') if found else None
    return open_database(parts.render_as_string(hide_password=False)), schema


def read(tx: Connection, *, schema: str | None = None) -> MageRows:
    """The rows of Mage's tables. Raises InvalidInput when the tables are not Mage's."""
    look = _Look(tx, schema)
    columns = look.columns("pipeline_schedule")
    if "token_hash" in columns:
        raise InvalidInput("This is a database of Runwright, not of Mage.")
    if not columns >= _NEEDED:
        raise InvalidInput(
            "This is no database of Mage: it has no table pipeline_schedule as Mage makes it.",
            hint="Mage's is in its MAGE_DATABASE_CONNECTION_URL, else mage-ai.db in its data folder.",
        )
    tags, ran, backfills = _tags(look), _have_run(look), _backfills(look)
    names = [*_NEEDED, *(name for name in _LATER if name in columns)]
    triggers = tuple(
        _trigger(
            row, tags=tags.get(row["id"], ()), has_run=row["id"] in ran, backfill=backfills.get(row["id"])
        )
        for row in look.rows("pipeline_schedule", names)
    )
    last_id = max((trigger.id for trigger in triggers), default=0)
    return MageRows(triggers=triggers, matchers=_matchers(look), last_id=last_id)


class _Look:
    """Selects from tables that another program has made."""

    def __init__(self, tx: Connection, schema: str | None) -> None:
        self._tx, self._schema, self._inspector = tx, schema, inspect(tx)

    def columns(self, name: str) -> set[str]:
        """The columns of a table; none when there is no such table."""
        if not self._inspector.has_table(name, schema=self._schema):
            return set()
        return {found["name"] for found in self._inspector.get_columns(name, schema=self._schema)}

    def rows(self, name: str, names: list[str]) -> Iterator[Mapping[str, Any]]:
        """Some columns of all rows, in the order of the id or else of the first of them."""
        source = table(name, *(column(n) for n in names), schema=self._schema)
        query: Select[Any] = select(*source.c).order_by(source.c["id" if "id" in names else names[0]])
        yield from (row._asdict() for row in self._tx.execute(query).all())

    def has_run(self, trigger_id: int) -> bool:
        """Whether a trigger ever had a run."""
        runs = table("pipeline_run", column("pipeline_schedule_id"), schema=self._schema)
        query = select(1).select_from(runs).where(runs.c.pipeline_schedule_id == trigger_id).limit(1)
        return self._tx.execute(query).first() is not None


def _trigger(row: Mapping[str, Any], **more: Any) -> MageTrigger:
    faults: list[str] = []
    values: dict[str, Any] = {
        "name": "",
        "pipeline_uuid": "",
        **{k: v for k, v in row.items() if v is not None},
    }
    values["schedule_type"] = _enum(row["schedule_type"])
    values["status"] = _enum(row["status"]) or "inactive"
    for name in ("variables", "settings"):
        values[name] = _json(name, row.get(name), faults)
    values["start_time"] = _time(row.get("start_time"), faults)
    return MageTrigger(**values, **more, faults=tuple(faults))


def _tags(look: _Look) -> Mapping[int, tuple[str, ...]]:
    if not (look.columns("tag") and look.columns("tag_association")):
        return {}
    names = {row["id"]: row["name"] for row in look.rows("tag", ["id", "name"])}
    found: dict[int, list[str]] = defaultdict(list)
    for row in look.rows("tag_association", ["id", "tag_id", "taggable_id", "taggable_type"]):
        if row["taggable_type"] == "PipelineSchedule" and names.get(row["tag_id"]):
            found[row["taggable_id"]].append(names[row["tag_id"]])
    return {trigger_id: tuple(sorted(tags)) for trigger_id, tags in found.items()}


def _have_run(look: _Look) -> set[int]:
    """The `@once` triggers that have a run. Runs may be many millions: they are asked for by trigger."""
    if not look.columns("pipeline_run"):
        return set()
    rows = look.rows("pipeline_schedule", ["id", "schedule_interval"])
    return {row["id"] for row in rows if row["schedule_interval"] == "@once" and look.has_run(row["id"])}


def _backfills(look: _Look) -> Mapping[int, str]:
    """Trigger id -> name of the backfill that it belongs to."""
    if "pipeline_schedule_id" not in look.columns("backfill"):
        return {}
    rows = look.rows("backfill", ["id", "name", "pipeline_schedule_id"])
    return {row["pipeline_schedule_id"]: row["name"] or str(row["id"]) for row in rows}


def _matchers(look: _Look) -> tuple[MageMatcher, ...]:
    pairs = "pipeline_schedule_event_matcher_association"
    if not (look.columns("event_matcher") and look.columns(pairs)):
        return ()
    linked: dict[int, list[int]] = defaultdict(list)
    for row in look.rows(pairs, ["event_matcher_id", "pipeline_schedule_id"]):
        if row["pipeline_schedule_id"] is not None:
            linked[row["event_matcher_id"]].append(row["pipeline_schedule_id"])
    return tuple(
        MageMatcher(
            id=row["id"],
            name=row["name"] or "",
            event_type=_enum(row["event_type"]),
            pattern=_json("pattern", row["pattern"], []),
            trigger_ids=tuple(sorted(linked[row["id"]])),
        )
        for row in look.rows("event_matcher", ["id", "name", "event_type", "pattern"])
    )


def _enum(value: Any) -> str | None:
    """A native enumeration holds the name, `TIME`; text may hold the value, `time`."""
    return str(value).lower() if value is not None else None


def _json(name: str, value: Any, faults: list[str]) -> Any:
    if not isinstance(value, (str, bytes)):
        return value
    try:
        return json.loads(value)
    except ValueError:
        faults.append(f"{name} is not JSON")
        return None


def _time(value: Any, faults: list[str]) -> datetime | None:
    if value is None:
        return None
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        faults.append(f"start_time '{value}' is no time")
        return None
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
