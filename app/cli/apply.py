"""`runwright triggers apply`: the triggers brought to their files, by a service or in its database."""

import asyncio
from pathlib import Path
from typing import NoReturn

import typer

from app.cli import tables
from app.cli.exits import Exit
from app.cli.logs import configure_logging
from app.cli.project import open_project, prepare_home
from app.cli.service import find_service
from app.client import Unreachable
from app.models.system_schemas import Applied
from app.scheduler import applying
from app.scheduler.triggers import Triggers
from app.settings import Settings
from app.store import migrate, nodes
from app.store.db import is_there
from app.store.ids import Ids
from app.store.opening import open_database, require_safe_place

_DONE = ("created", "changed", "deactivated", "deleted")


def apply(
    folder: Path, server: str | None, database_url: str | None, prune: bool, dry_run: bool, output: str
) -> int:
    """Say what changed; exit with 1 when a trigger of the files is quarantined."""
    found = _by_service(folder, server, database_url, prune, dry_run)
    if found is None:
        configure_logging("warning")
        _, settings = open_project(folder, database_url=database_url)
        found = _in_database(settings, prune, dry_run)
    if output == "json":
        tables.show_one(found.model_dump(mode="json"), output)
    else:
        _say(found)
    return Exit.FAILED if any(trigger.error for trigger in (*found.created, *found.changed)) else Exit.OK


def _by_service(
    folder: Path, server: str | None, database_url: str | None, prune: bool, dry_run: bool
) -> Applied | None:
    """What the service of the project has done; None when none is running here."""
    if database_url is not None:
        return None
    try:
        with find_service(server or str(folder)).client() as client:
            return client.apply_triggers(prune=prune, dry_run=dry_run)
    except Unreachable:
        if server is not None:
            raise
        return None


def _in_database(settings: Settings, prune: bool, dry_run: bool) -> Applied:
    require_safe_place(settings.store_url, network_allowed=settings.sqlite_on_network)
    if dry_run and not is_there(settings.store_url):
        files = applying.fresh_catalogue(settings)
        return Applied.model_validate(applying.planned([], files.triggers(), prune=prune))
    prepare_home(settings.home)
    migrate.upgrade(settings.store_url)
    return asyncio.run(_apply(settings, prune, dry_run))


async def _apply(settings: Settings, prune: bool, dry_run: bool) -> Applied:
    """The same without a service. Raises StartRefused while one has a SQLite database, or for another project's."""
    db = open_database(settings.store_url)
    await db.open()
    try:
        catalogue = applying.fresh_catalogue(settings)
        await db.write(nodes.bind_project, catalogue.project.uuid)
        ids = Ids(db, "pipeline_schedule", size=1)
        triggers = Triggers(db=db, catalogue=catalogue, node_id="command line", launch=_no_launch)
        done = await applying.apply(
            db,
            settings,
            triggers,
            lambda: applying.bring(db, catalogue, ids, "command line"),
            prune=prune,
            dry_run=dry_run,
        )
    finally:
        await db.close()
    return Applied.model_validate(done)


def _no_launch(*_args: object, **_named: object) -> NoReturn:
    raise RuntimeError("nothing is launched here")


def _say(found: Applied) -> None:
    would = "would be " if found.dry_run else ""
    rows = [
        {
            "trigger": f"{trigger.pipeline_uuid}/{trigger.name}",
            "id": trigger.id,
            "done": would + name,
            "error": trigger.error,
        }
        for name in _DONE
        for trigger in getattr(found, name)
    ]
    tables.show(rows, "table", empty="the triggers are as their files say")
    if found.deactivated and not found.dry_run:
        typer.echo("To delete what has gone from its file: --prune", err=True)
