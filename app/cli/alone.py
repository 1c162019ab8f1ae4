"""A project's database for a command that does its work without a service."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.cli.project import prepare_home
from app.settings import Settings
from app.store import migrate, nodes
from app.store.db import Database
from app.store.opening import open_database, require_safe_place


@asynccontextmanager
async def project_database(settings: Settings, project_uuid: str) -> AsyncIterator[Database]:
    """The database of a project, made if it is not there, and brought to this program's schema.

    Raises StartRefused while a service has it open on SQLite, for another project's, and on a network file system.
    """
    require_safe_place(settings.store_url, network_allowed=settings.sqlite_on_network)
    prepare_home(settings.home)
    await asyncio.to_thread(migrate.upgrade, settings.store_url)
    db = open_database(settings.store_url)
    await db.open()
    try:
        await db.write(nodes.bind_project, project_uuid)
        yield db
    finally:
        await db.close()
