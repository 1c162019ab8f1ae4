"""`runwright triggers apply`: the triggers brought to their files, by a service or in its database."""

import asyncio
from pathlib import Path
from typing import NoReturn

import typer

from app.cli import tables
from app.cli.alone import project_database
from app.cli.exits import Exit
from app.cli.logs import configure_logging
from app.cli.project import open_project
from app.cli.service import served_or_alone
from app.models.system_schemas import Applied
from app.pipelines.catalogue import Catalogue
from app.scheduler import applying
from app.scheduler.catalogues import fresh_catalogue
from app.scheduler.triggers import Triggers
from app.settings import Settings
from app.store.db import is_there
from app.store.ids import Ids

_DONE = ("created", "changed", "deactivated", "deleted")


def apply(
    folder: Path, server: str | None, database_url: str | None, prune: bool, dry_run: bool, output: str
) -> int:
    """Say what changed; exit with 1 when a trigger of the files is quarantined."""

    def alone(folder: Path) -> Applied:
        configure_logging("warning")
        _, settings = open_project(folder, database_url=database_url)
        return _in_database(settings, prune, dry_run)

    if database_url is not None:
        found = alone(folder)
    else:
        named = server or (None if folder == Path() else str(folder))
        found = served_or_alone(named, lambda c: c.apply_triggers(prune=prune, dry_run=dry_run), alone)
    if output == "json":
        tables.show_one(found.model_dump(mode="json"), output)
    else:
        _say(found)
    return Exit.FAILED if found.quarantined else Exit.OK


def _in_database(settings: Settings, prune: bool, dry_run: bool) -> Applied:
    files = fresh_catalogue(settings.project, settings.env)
    if dry_run and not is_there(settings.store_url):
        return Applied.model_validate(applying.planned([], files.triggers(), prune=prune))
    return asyncio.run(_apply(settings, files, prune, dry_run))


async def _apply(settings: Settings, catalogue: Catalogue, prune: bool, dry_run: bool) -> Applied:
    """The same without a service. Raises StartRefused while one has a SQLite database, or for another project's."""
    async with project_database(settings, catalogue.project.uuid) as db:
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
    return Applied.model_validate(done)


def _no_launch(*_args: object, **_named: object) -> NoReturn:
    raise RuntimeError("nothing is launched here")


def _say(found: Applied) -> None:
    would = "would be " if found.dry_run else ""
    said = [(would + name, trigger) for name in _DONE for trigger in getattr(found, name)]
    told = {(trigger.pipeline_uuid, trigger.name) for _done, trigger in said}
    said += [("", one) for one in found.quarantined if (one.pipeline_uuid, one.name) not in told]
    rows = [
        {
            "trigger": f"{trigger.pipeline_uuid}/{trigger.name}",
            "id": trigger.id,
            "done": done,
            "error": trigger.error,
        }
        for done, trigger in said
    ]
    tables.show(rows, "table", empty="the triggers are as their files say")
    if found.deactivated and not found.dry_run:
        typer.echo("To delete what has gone from its file: --prune", err=True)
