"""`runwright limits`: how many runs may run at once."""

import typer

from app.cli import tables
from app.cli.exits import Exit
from app.cli.service import find_service
from app.client import RunLimit


def ls(server: str | None, output: str) -> int:
    """Show every limit."""
    with find_service(server).client() as client:
        found = list(client.limits())
    tables.show_all(found, _row, output, empty="no limits")
    return Exit.OK


def _row(limit: RunLimit) -> dict[str, object]:
    return {
        "scope": limit.scope,
        "cap": limit.cap,
        "running": limit.running,
        "waiting": limit.waiting,
        "source": limit.source,
        "held by": limit.holders,
    }


def put(server: str | None, scope: str, cap: int) -> int:
    """Set one."""
    with find_service(server).client() as client:
        found = client.set_limit(scope, cap)
    typer.echo(f"{found.scope}: {found.cap} at once; {found.running} run, {found.waiting} wait")
    return Exit.OK


def unset(server: str | None, scope: str) -> int:
    """Lift one."""
    with find_service(server).client() as client:
        client.unset_limit(scope)
    typer.echo(f"{scope}: no limit")
    return Exit.OK
