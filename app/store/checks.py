"""What can be said of a database at rest or in use: is it sound, do its rows fit each other."""

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, inspect, text

from app.models.tables import metadata
from app.store import invariants, migrate


@dataclass(frozen=True, slots=True)
class Verdict:
    """One thing that was looked at."""

    check: str
    status: Literal["ok", "failed"]
    detail: str


def examine(tx: Connection, *, deep: bool = False) -> list[Verdict]:
    """Schema, integrity and references; `deep` adds the invariants. Raises StartRefused for a newer schema."""
    version = migrate.current(tx)
    if not migrate.check(tx):
        words = f"{version or 'empty'}, this program's is {migrate.HEAD}"
        hint = "the next start or `runwright db upgrade` brings it there"
        return [Verdict("schema", "failed", f"{words}; {hint}"), _integrity(tx)]
    found = [Verdict("schema", "ok", migrate.HEAD), _integrity(tx), _references(tx)]
    return [*found, _invariants(tx)] if deep else found


def _verdict(check: str, faults: list[str], good: str) -> Verdict:
    return Verdict(check, "failed", "; ".join(faults[:5])) if faults else Verdict(check, "ok", good)


def _integrity(tx: Connection) -> Verdict:
    if tx.dialect.name == "sqlite":
        rows = [row[0] for row in tx.exec_driver_sql("PRAGMA quick_check(5)")]
        return _verdict("integrity", [row for row in rows if row != "ok"], "every page and index of the file")
    broken = tx.execute(
        text(
            "SELECT 'index ' || c.relname || ' is not valid (REINDEX it)' FROM pg_index i"
            " JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE NOT i.indisvalid AND n.nspname = current_schema()"
        )
    ).scalars()
    faults = list(broken)
    there = set(inspect(tx).get_table_names())
    count = 0
    for name in sorted(there & set(metadata.tables)):  # every page is read, a torn one is an error
        count += tx.execute(text(f'SELECT count(*) FROM "{name}"')).scalar_one()
    faults += [f"table {name} is missing" for name in sorted(set(metadata.tables) - there)]
    return _verdict("integrity", faults, f"all tables were read, {count} rows; indexes are valid")


def _references(tx: Connection) -> Verdict:
    if tx.dialect.name == "sqlite":
        rows = tx.exec_driver_sql("PRAGMA foreign_key_check").fetchmany(5)
        faults = [f"{row[0]} row {row[1]} names a {row[2]} that is not there" for row in rows]
        return _verdict("references", faults, "every row's references are there")
    rows = tx.execute(
        text(
            "SELECT conname, conrelid::regclass::text FROM pg_constraint WHERE NOT convalidated"
            " AND connamespace = current_schema()::regnamespace"
        )
    ).fetchmany(5)
    faults = [f"{row[1]}: constraint {row[0]} was never validated" for row in rows]
    return _verdict("references", faults, "every constraint is validated")


def _invariants(tx: Connection) -> Verdict:
    return _verdict("invariants", invariants.find(tx), f"{len(invariants.queries()) + 1} hold")
