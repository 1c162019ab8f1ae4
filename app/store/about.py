"""What a person is told about the database: its address without the password, its version, its schema."""

import sqlite3
from typing import Final

from sqlalchemy import make_url

from app.errors import RunwrightError
from app.store import migrate
from app.store.opening import open_database

#: UPDATE … RETURNING came with it.
SQLITE_NEEDED: Final = (3, 35)


def shown(url: str) -> str:
    """The URL as it may be printed.

    >>> shown("postgresql://me:secret@db/runwright")
    'postgresql://me:***@db/runwright'
    """
    return make_url(url).render_as_string(hide_password=True)


def sqlite_version() -> str:
    """The version of the SQLite library in use. Raises RunwrightError when it is too old."""
    if sqlite3.sqlite_version_info < SQLITE_NEEDED:
        needed = ".".join(map(str, SQLITE_NEEDED))
        raise RunwrightError(f"SQLite {sqlite3.sqlite_version} is too old; {needed} is needed.")
    return sqlite3.sqlite_version


async def schema(url: str) -> str:
    """The state of a database's schema in words, without changing it. Raises StartRefused for a newer program's."""
    database = open_database(url, exclusive=False)
    await database.open()
    try:
        version = await database.read(migrate.current)
        await database.read(migrate.check)
    finally:
        await database.close()
    if version == migrate.HEAD:
        return f"schema {version}, current"
    return f"schema {version or 'empty'}, to be upgraded to {migrate.HEAD} at the next start"
