"""Which database a URL means, and which journal goes with it."""

from sqlalchemy import make_url

from app.errors import StartRefused
from app.store.db import Database
from app.store.journal import Backend
from app.store.journal_sqlite import SqliteJournal
from app.store.sqlite import SqliteDatabase


def open_database(url: str, *, exclusive: bool = True) -> Database:
    """The database behind a URL, not yet opened: `sqlite:///path` or `postgresql://…`.

    `exclusive=False` lets a command line tool look at a SQLite file that a service owns, read-only.
    """
    backend = make_url(url).get_backend_name()
    if backend == "sqlite":
        return SqliteDatabase(url, exclusive=exclusive)
    if backend in ("postgresql", "postgres"):
        from app.store.postgres import PostgresDatabase  # asyncpg is loaded only where it is needed

        return PostgresDatabase(url.replace("postgres://", "postgresql://", 1))
    raise StartRefused(
        f"database '{backend}' is not supported", hint="use sqlite:///path or postgresql://user@host/database"
    )


def backend_for(db: Database, node_id: str) -> Backend:
    """The journal's backend for a database."""
    if db.dialect == "sqlite":
        return SqliteJournal(db, node_id)
    from app.store.journal_postgres import PostgresJournal

    return PostgresJournal(db.url, node_id)
