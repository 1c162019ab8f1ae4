"""`runwright secrets`: through the service if one runs, else straight in the project's database."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import typer

from app.cli import tables
from app.cli.exits import Exit
from app.cli.service import served_or_alone
from app.client import Client
from app.models.rows import SecretRow
from app.models.schemas import Secret
from app.scheduler.secrets import Secrets
from app.store.vault import new_key

T = TypeVar("T")
_MOST = 100_000


def ls(server: str | None, output: str) -> int:
    """Show names and times."""
    found = _do(server, lambda client: list(client.secrets()), _all)
    rows = [{"name": s.name, "set": s.updated_at, "made": s.created_at} for s in found]
    tables.show(rows, output, empty="no secrets")
    return Exit.OK


async def _all(secrets: Secrets) -> list[Secret]:
    return [_shown(row) for row in await secrets.page(limit=_MOST)]


def _shown(row: SecretRow) -> Secret:
    return Secret.model_validate(row)


def put(server: str | None, name: str) -> int:
    """Set a secret to what is typed or piped in."""
    value = _value(name)

    async def alone(secrets: Secrets) -> Secret:
        return _shown(await secrets.put(name, value))

    _do(server, lambda client: client.put_secret(name, value), alone)
    typer.echo(f"secret '{name}' is set")
    return Exit.OK


def _value(name: str) -> str:
    """Not from the command line: others could read it there, and the shell would keep it."""
    if sys.stdin.isatty():
        value: str = typer.prompt(f"Value of {name}", hide_input=True, err=True)
        return value
    return sys.stdin.read().removesuffix("\n")


def remove(server: str | None, name: str) -> int:
    """Forget a secret."""
    _do(server, lambda client: client.delete_secret(name), lambda secrets: secrets.remove(name))
    typer.echo(f"secret '{name}' is gone")
    return Exit.OK


def rotate(server: str | None) -> int:
    """Seal all of them anew."""
    count = _do(server, lambda client: client.rotate_secrets(), lambda secrets: secrets.rotate())
    typer.echo(f"{count} secrets are sealed with the first key")
    return Exit.OK


def key() -> int:
    """Print a new key."""
    typer.echo(new_key())
    return Exit.OK


def _do(server: str | None, remote: Callable[[Client], T], alone: Callable[[Secrets], Awaitable[T]]) -> T:
    return served_or_alone(server, remote, lambda folder: asyncio.run(_alone(folder, alone)))


async def _alone(folder: Path, work: Callable[[Secrets], Awaitable[T]]) -> T:
    from app.cli.alone import project_database  # much: not for those who ask a service
    from app.cli.project import open_project

    project, settings = open_project(folder)
    async with project_database(settings, project.uuid) as db:
        return await work(Secrets(db, settings))
