"""The groups of commands that need no running service: `cron`, `db`, `keys`."""

from pathlib import Path
from typing import Annotated

import typer

from app.cli.exits import explained
from app.cli.options import DatabaseUrl, Output, Project, group

cron = group("Look at schedule intervals.")
db = group("Look after the database.")
keys = group("Make keys.")


@cron.command()
def explain(
    interval: Annotated[str, typer.Argument(metavar="EXPR", help="Such as '0 6 * * 1-5' or @daily.")],
    timezone: Annotated[str, typer.Option(help="Time zone of the expression.")] = "UTC",
    count: Annotated[
        int, typer.Option("-n", "--count", min=1, max=100, help="How many execution dates.")
    ] = 10,
    dst_gap: Annotated[
        str | None, typer.Option(metavar="next|skip", help="What becomes of a time that the clock skips.")
    ] = None,
    dst_overlap: Annotated[
        str | None, typer.Option(metavar="first|both", help="What becomes of a time that comes twice.")
    ] = None,
    output: Output = "table",
) -> None:
    """An interval in words, its next execution dates, and what clock changes do to it."""
    with explained():
        from app.cli.cron import explain_interval

        settings = {"dst_gap": dst_gap, "dst_overlap": dst_overlap}
        raise typer.Exit(explain_interval(interval, timezone, count, settings, output))


@db.command("upgrade")
def upgrade(project_path: Project = Path(), database_url: DatabaseUrl = None) -> None:
    """Bring the database to this program's schema. A start does the same."""
    with explained():
        from app.cli.database import upgrade

        raise typer.Exit(upgrade(project_path, database_url))


@db.command("check")
def check(
    project_path: Project = Path(),
    database_url: DatabaseUrl = None,
    invariants: Annotated[
        bool, typer.Option("--invariants", help="Also whether all rows fit each other; reads everything.")
    ] = False,
    output: Output = "table",
) -> None:
    """Look through the database: schema, integrity, references. Exits with 1 when something is wrong."""
    with explained():
        from app.cli.database import check

        raise typer.Exit(check(project_path, database_url, deep=invariants, output=output))


_File = Annotated[Path, typer.Argument(metavar="FILE", help="The copy.")]


@db.command("backup")
def backup(
    file: _File,
    project_path: Project = Path(),
    database_url: DatabaseUrl = None,
    artifacts: Annotated[
        bool, typer.Option("--artifacts", help="Block outputs as well, in FILE.artifacts.tar.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE.")] = False,
) -> None:
    """Copy the database to a file, also while the service runs. Postgres needs pg_dump."""
    with explained():
        from app.cli.database import backup

        raise typer.Exit(backup(project_path, file, database_url, artifacts=artifacts, force=force))


@db.command("restore")
def restore(
    file: _File,
    project_path: Project = Path(),
    database_url: DatabaseUrl = None,
    artifacts: Annotated[
        bool, typer.Option("--artifacts", help="Block outputs as well, from FILE.artifacts.tar.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a database that is there.")] = False,
) -> None:
    """Put a copy in the database's place, while no service runs on it. Postgres needs pg_restore."""
    with explained():
        from app.cli.database import restore

        raise typer.Exit(restore(project_path, file, database_url, artifacts=artifacts, force=force))


@db.command("prune")
def prune(
    project_path: Project = Path(),
    database_url: DatabaseUrl = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and keep it.")] = False,
    output: Output = "table",
) -> None:
    """Forget what is past its time, as the service does by and by: runs, logs, outputs, slots."""
    with explained():
        from app.cli.prune import prune

        raise typer.Exit(prune(project_path, database_url, dry_run=dry_run, output=output))


@keys.command("generate")
def generate() -> None:
    """Print a new key that nobody can guess, for RUNWRIGHT_ADMIN_KEY."""
    from secrets import token_urlsafe

    typer.echo(f"rw_{token_urlsafe(32)}")
