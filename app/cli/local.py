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
    count: Annotated[int, typer.Option(min=1, max=100, help="How many execution dates.")] = 10,
    output: Output = "table",
) -> None:
    """The next execution dates of an interval."""
    with explained():
        from app.cli.cron import explain_interval

        raise typer.Exit(explain_interval(interval, timezone, count, output))


@db.command("upgrade")
def upgrade(project_path: Project = Path(), database_url: DatabaseUrl = None) -> None:
    """Bring the database to this program's schema. A start does the same."""
    with explained():
        from app.cli.database import upgrade

        raise typer.Exit(upgrade(project_path, database_url))


@db.command("check")
def check(project_path: Project = Path(), database_url: DatabaseUrl = None) -> None:
    """Say which schema the database has. Exits with 1 when it is not this program's."""
    with explained():
        from app.cli.database import check

        raise typer.Exit(check(project_path, database_url))


@keys.command("generate")
def generate() -> None:
    """Print a new key that nobody can guess, for RUNWRIGHT_ADMIN_KEY."""
    from secrets import token_urlsafe

    typer.echo(f"rw_{token_urlsafe(32)}")
