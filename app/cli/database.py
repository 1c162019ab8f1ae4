"""`runwright db`: the schema of the database, seen to without a service."""

import asyncio
from contextlib import closing, nullcontext
from pathlib import Path

import typer

from app.cli.exits import Exit
from app.cli.logs import configure_logging
from app.cli.project import open_project, prepare_home
from app.store import about, migrate
from app.store.db import is_there
from app.store.sqlite import take_lock

_SQLITE = "sqlite:///"


def upgrade(folder: Path, database_url: str | None) -> int:
    """Bring it to this program's schema. Raises StartRefused while a service has it open."""
    configure_logging("warning")
    _, settings = open_project(folder, database_url=database_url)
    prepare_home(settings.home)
    url = settings.store_url
    file = Path(url.removeprefix(_SQLITE))
    with closing(take_lock(file)) if url.startswith(_SQLITE) else nullcontext():
        migrate.upgrade(url)
    typer.echo(f"{about.shown(url)}: schema {migrate.HEAD}, current")
    return Exit.OK


def check(folder: Path, database_url: str | None) -> int:
    """Say which schema it has, without changing it. Raises StartRefused for one of a newer program."""
    _, settings = open_project(folder, database_url=database_url)
    url = settings.store_url
    if not is_there(url):
        typer.echo(f"{about.shown(url)}: not there yet, the first start makes it")
        return Exit.FAILED
    words = asyncio.run(about.schema(url))
    typer.echo(f"{about.shown(url)}: {words}")
    return Exit.OK if words.endswith(", current") else Exit.FAILED
