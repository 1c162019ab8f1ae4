"""`runwright secrets`: through the service if one runs, else straight in the project's database."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import typer

from app.cli import tables
from app.cli.exits import Exit
from app.cli.service import find_service
from app.client import Client, Unreachable
from app.models.rows import SecretRow
from app.models.schemas import Secret
from app.scheduler.secrets import Secrets
from app.settings import environment
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
    """Ask the service; where none runs for a folder of this machine, do it in its database."""
    try:
        with find_service(server).client() as client:
            return remote(client)
    except Unreachable:
        if "://" in (server or "") or (server is None and environment().get("RUNWRIGHT_URL")):
            raise
    return asyncio.run(_alone(Path(server or ""), alone))


async def _alone(folder: Path, work: Callable[[Secrets], Awaitable[T]]) -> T:
    from app.cli.project import open_project, prepare_home
    from app.store import migrate
    from app.store.opening import open_database

    _, settings = open_project(folder)
    prepare_home(settings.home)
    await asyncio.to_thread(migrate.upgrade, settings.store_url)
    db = open_database(settings.store_url)
    await db.open()
    try:
        return await work(Secrets(db, settings))
    finally:
        await db.close()
