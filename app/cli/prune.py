"""`runwright db prune`: forget now what a service would forget by and by, or say what that is."""

import asyncio
import os
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import typer

from app.cli.exits import Exit
from app.cli.logs import configure_logging
from app.cli.project import open_project
from app.cli.tables import show, show_one
from app.errors import Conflict, NotFound
from app.scheduler.catalogues import fresh_catalogue
from app.scheduler.foreseen import Foreseen, foresee
from app.scheduler.pruner import Pruned, Pruner
from app.settings import Settings
from app.store import about, migrate, nodes
from app.store.db import is_there
from app.store.opening import open_database, require_safe_place


def prune(folder: Path, database_url: str | None, *, dry_run: bool, output: str) -> int:
    """Forget what is past its time. Raises StartRefused while a service has a SQLite database, NotFound without one."""
    configure_logging("warning")
    _, settings = open_project(folder, database_url=database_url)
    if not is_there(settings.store_url):
        raise NotFound(f"{about.shown(settings.store_url)} is not there yet: the first start makes it.")
    if dry_run:
        found, slots = asyncio.run(_foresee(settings))
        _show(found, slots, output)
        return Exit.OK
    require_safe_place(settings.store_url, network_allowed=settings.sqlite_on_network)
    migrate.upgrade(settings.store_url)
    show_one(asdict(asyncio.run(_prune(settings))), output)
    return Exit.OK


async def _foresee(settings: Settings) -> tuple[list[Foreseen], int]:
    db = open_database(settings.store_url, exclusive=False)
    await db.open()
    try:
        catalogue = fresh_catalogue(settings.project, settings.env)
        return await foresee(db, Pruner(db, catalogue, settings, _me()), settings)
    finally:
        await db.close()


async def _prune(settings: Settings) -> Pruned:
    db = open_database(settings.store_url)
    await db.open()
    try:
        catalogue = fresh_catalogue(settings.project, settings.env)
        await db.write(nodes.bind_project, catalogue.project.uuid)
        # On SQLite nobody else is there; beside the replicas of Postgres it goes as slowly as they do.
        pruner = Pruner(db, catalogue, settings, _me())
        if db.dialect == "sqlite":
            pruner = Pruner(db, catalogue, settings, _me(), share=1.0, grace=timedelta(0))
        done = await pruner.run()
        if pruner.taken:
            raise Conflict(f"{pruner.taken} now", hint="it does the same; what is left goes a minute after")
        return done
    finally:
        await db.close()


def _me() -> str:
    return f"command line {os.getpid()}"


def _show(found: list[Foreseen], slots: int, output: str) -> None:
    if output == "json":
        show_one({"pipelines": [asdict(one) for one in found], "slots": slots}, output)
        return
    show([asdict(one) for one in found], output, empty="no run is past its time")
    typer.echo(f"slots that made no run: {slots}")
