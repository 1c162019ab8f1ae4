"""`runwright import-mage`: triggers out of Mage's database into the project's, with a report."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import typer

from app import clock
from app.cli.exits import Exit
from app.cli.logs import configure_logging
from app.cli.project import open_project, prepare_home
from app.cli.tables import show
from app.errors import StartRefused
from app.pipelines.catalogue import Catalogue
from app.pipelines.mage_variables import stored_variables, variables_folders, write_variables
from app.scheduler.catalogues import fresh_catalogue
from app.scheduler.import_mage import rehearse, summary, take_over
from app.scheduler.limiting import limits_in
from app.scheduler.mage_plan import Line, Place, Result
from app.scheduler.sync import By
from app.settings import Settings
from app.store import adopt, mage, migrate, nodes
from app.store.adopt import Holdings
from app.store.db import Database, is_there
from app.store.mage import MageRows
from app.store.opening import open_database


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the command line asks for besides project and database."""

    into: str | None = None
    repo_path: str | None = None
    variables_dir: Path | None = None
    write_variables: bool = False
    dry_run: bool = False


def import_from_mage(folder: Path, url: str, wishes: Wishes, output: str) -> int:
    """Take over what can be, show the report; the exit code says whether anything was refused."""
    _, settings = open_project(folder, database_url=wishes.into)
    configure_logging("warning")
    catalogue = fresh_catalogue(settings.project, settings.env)
    names = (str(settings.project), str(folder.absolute()), wishes.repo_path or "")
    place = Place.of(catalogue, frozenset(name.rstrip("/") for name in names if name))
    rows = asyncio.run(mage.read_database(url))
    lines = asyncio.run(_look(settings, rows, place) if wishes.dry_run else _take(settings, rows, place))
    lines += _variables(catalogue, wishes)
    show([asdict(line) for line in lines], output, empty="Mage's database has no triggers")
    for text in _last_words(lines, rows, wishes):
        typer.echo(text, err=True)
    return Exit.FAILED if any(line.result is Result.REFUSED for line in lines) else Exit.OK


async def _look(settings: Settings, rows: MageRows, place: Place) -> list[Line]:
    """The report against what is in the project's database now, which a service may be serving."""
    if not is_there(settings.store_url):
        return rehearse(rows, Holdings(), place)
    database = open_database(settings.store_url, exclusive=False)
    await database.open()
    try:
        if await database.read(migrate.current) is None:
            return rehearse(rows, Holdings(), place)
        if not await database.read(migrate.check):
            raise StartRefused(
                "The project's database is of an older version.", hint="Start the service once."
            )
        return rehearse(rows, await database.read(adopt.holdings), place)
    finally:
        await database.close()


async def _take(settings: Settings, rows: MageRows, place: Place) -> list[Line]:
    prepare_home(settings.home)
    await asyncio.to_thread(migrate.upgrade, settings.store_url)
    database = open_database(settings.store_url)
    await _open_alone(database)
    try:
        await database.write(nodes.bind_project, place.project.uuid)
        limits = limits_in(place.pipelines.values())
        by = By("import-mage", clock.now(), place.project.week_start, limits)
        return await database.write(take_over, rows, place, by=by)
    finally:
        await database.close()


async def _open_alone(database: Database) -> None:
    try:
        await database.open()
    except StartRefused as error:
        await database.close()
        raise StartRefused(
            f"import-mage needs the project's database to itself. {error.detail}",
            hint="Stop the service, import, start it again. --dry-run works beside a service.",
        ) from None


def _variables(catalogue: Catalogue, wishes: Wishes) -> list[Line]:
    """Global variables that the pipelines' files do not have."""
    root = catalogue.root
    folders = [wishes.variables_dir] if wishes.variables_dir else variables_folders(root)
    stored = stored_variables(root, [entry.uuid for entry in catalogue.entries()], folders)
    lines = []
    for uuid, group in groupby(stored, key=lambda variable: variable.pipeline_uuid):
        found = list(group)
        good = [variable for variable in found if variable.fault is None]
        written = bool(good) and wishes.write_variables
        if written and not wishes.dry_run:
            write_variables(root, good)
        for variable in found:
            result = Result.TAKEN if written and variable in good else Result.REFUSED
            why = variable.fault or _where(uuid, written)
            lines.append(
                Line(kind="global variable", pipeline=uuid, name=variable.name, result=result, why=why)
            )
    return lines


def _where(uuid: str, written: bool) -> str:
    file = f"pipelines/{uuid}/metadata.yaml"
    if written:
        return f"written into {file}"
    return f"is not in {file}, the only place it is read from here: write it there, or use --write-variables"


def _last_words(lines: Sequence[Line], rows: MageRows, wishes: Wishes) -> Iterator[str]:
    yield summary(lines, dry_run=wishes.dry_run)
    elsewhere = sorted({line.why for line in lines if line.why.startswith("belongs to the project in ")})
    if elsewhere:
        paths = ", ".join(why.removeprefix("belongs to the project in ") for why in elsewhere)
        yield f"If Mage knew this project under another path ({paths}), give it as --repo-path."
    taken = any(line.result in (Result.TAKEN, Result.CHANGED) for line in lines)
    if taken and not wishes.dry_run:
        yield "Mage's scheduler must be stopped before Runwright starts: else both run the triggers."
