"""Which database a URL means, and which journal goes with it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import make_url

from app import failpoints
from app.errors import StartRefused
from app.store.db import Database
from app.store.journal import Backend
from app.store.journal_sqlite import SqliteJournal
from app.store.sqlite import SqliteDatabase
from app.store.sqlite_file import require_local


def open_database(url: str, *, exclusive: bool = True) -> Database:
    """The database behind a URL, not yet opened: `sqlite:///path` or `postgresql://…`.

    `exclusive=False` lets a command line tool look at a SQLite file that a service owns, read-only.
    """
    db = _behind(url, exclusive=exclusive)
    if failpoints.armed is None:
        return db
    from app.store.faulty import FaultyDatabase  # tests alone know it

    return FaultyDatabase(db, failpoints.armed)


def _behind(url: str, *, exclusive: bool) -> Database:
    backend = make_url(url).get_backend_name()
    if backend == "sqlite":
        return SqliteDatabase(url, exclusive=exclusive)
    if backend in ("postgresql", "postgres"):
        from app.store.postgres import PostgresDatabase  # asyncpg is loaded only where it is needed

        return PostgresDatabase(url.replace("postgres://", "postgresql://", 1))
    raise StartRefused(
        f"database '{backend}' is not supported", hint="use sqlite:///path or postgresql://user@host/database"
    )


def sqlite_path(url: str) -> Path | None:
    """The file of a SQLite URL; None for a server.

    >>> sqlite_path("sqlite:////srv/runwright.db"), sqlite_path("postgresql://db/runwright")
    (PosixPath('/srv/runwright.db'), None)
    """
    parts = make_url(url)
    return Path(parts.database or "") if parts.get_backend_name() == "sqlite" else None


def require_safe_place(url: str, *, network_allowed: bool) -> None:
    """Raise StartRefused for a SQLite file on a network file system, unless that is allowed."""
    if (path := sqlite_path(url)) is not None:
        require_local(path, allowed=network_allowed)


def backend_for(db: Database, node_id: str) -> Backend:
    """The journal's backend for a database."""
    backend = _journal_of(db, node_id)
    if failpoints.armed is None:
        return backend
    from app.store.faulty import FaultyJournal  # tests alone know it

    return FaultyJournal(backend, failpoints.armed)


def _journal_of(db: Database, node_id: str) -> Backend:
    if db.dialect == "sqlite":
        return SqliteJournal(db, node_id)
    from app.store.journal_postgres import PostgresJournal

    return PostgresJournal(db.url, node_id)


def voice_of(db: Database, node_id: str) -> Callable[[Callable[[list[str]], None], Callable[[], None]], Any]:
    """What makes a node's way to wake the others, given who hears them and who is told of a gap; None on SQLite."""
    if db.dialect == "sqlite":
        return lambda heard, missed: None
    from app.store.signals import Signals

    return lambda heard, missed: Signals(db.url, node_id, heard, missed)
