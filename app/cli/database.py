"""`runwright db`: the database seen to without a service."""

from dataclasses import asdict
from pathlib import Path

import typer

from app import clock
from app.cli.exits import Exit
from app.cli.logs import configure_logging
from app.cli.project import open_project, prepare_home
from app.cli.tables import show
from app.errors import StoreUnavailable
from app.settings import Settings
from app.store import about, apart, archive, checks, migrate
from app.store import backup as copying
from app.store.db import is_there
from app.store.opening import require_safe_place


def upgrade(folder: Path, database_url: str | None) -> int:
    """Bring it to this program's schema, saying from which. Raises StartRefused while a service has it open."""
    settings = _settings(folder, database_url)
    prepare_home(settings.home)
    require_safe_place(settings.store_url, network_allowed=settings.sqlite_on_network)
    before = migrate.upgrade(settings.store_url)
    words = "current" if before == migrate.HEAD else f"upgraded from {before or 'empty'}"
    typer.echo(f"{about.shown(settings.store_url)}: schema {migrate.HEAD}, {words}")
    return Exit.OK


def check(folder: Path, database_url: str | None, *, deep: bool = False, output: str = "table") -> int:
    """Look through it without changing it. Raises StartRefused for one of a newer program."""
    settings = _settings(folder, database_url)
    url = settings.store_url
    if not is_there(url):
        typer.echo(f"{about.shown(url)}: not there yet, the first start makes it")
        return Exit.FAILED
    try:
        found = apart.run(url, lambda tx: checks.examine(tx, deep=deep))
    except StoreUnavailable as error:
        found = [checks.Verdict("database", "failed", error.detail)]
    show([asdict(verdict) for verdict in found], output)
    return Exit.OK if all(verdict.status == "ok" for verdict in found) else Exit.FAILED


def backup(folder: Path, target: Path, database_url: str | None, *, artifacts: bool, force: bool) -> int:
    """Copy it to a file, also while a service runs."""
    settings = _settings(folder, database_url)
    version = copying.backup(settings.store_url, target, overwrite=force)
    typer.echo(f"{target}: {about.shown(settings.store_url)}, schema {version}, {_size(target)}")
    if artifacts:
        count = archive.pack(settings.artifacts, archive.beside(target))
        typer.echo(f"{archive.beside(target)}: {count} block outputs, {_size(archive.beside(target))}")
    else:
        typer.echo(f"not in it: block outputs ({settings.artifacts}; --artifacts), the project folder")
    return Exit.OK


def restore(folder: Path, source: Path, database_url: str | None, *, artifacts: bool, force: bool) -> int:
    """Put a backup in its place. Raises StartRefused while a service lives on it."""
    settings = _settings(folder, database_url)
    prepare_home(settings.home)
    require_safe_place(settings.store_url, network_allowed=settings.sqlite_on_network)
    found = copying.restore(settings.store_url, source, force=force, now=clock.now())
    typer.echo(f"{about.shown(settings.store_url)}: restored from {source}, schema {found.schema}")
    if found.kept is not None:
        typer.echo(f"what was there is {found.kept}")
    if artifacts:
        count = archive.unpack(archive.beside(source), settings.artifacts)
        typer.echo(f"{settings.artifacts}: {count} block outputs")
    typer.echo(f"{found.live_runs} runs were under way: the next service goes on with them.")
    typer.echo(
        "What happened after the backup is forgotten: due slots since then are decided again (catch_up)."
    )
    typer.echo(f"To look first: runwright start {folder} --paused")
    return Exit.OK


def _settings(folder: Path, database_url: str | None) -> Settings:
    configure_logging("warning")
    _, settings = open_project(folder, database_url=database_url)
    return settings


def _size(file: Path) -> str:
    return f"{file.stat().st_size:,} bytes"
