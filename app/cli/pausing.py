"""`runwright pause-all` and `resume-all`: no trigger fires, until all may again."""

from typing import cast

import typer

from app.cli import tables
from app.cli.exits import Exit
from app.cli.service import find_service
from app.models.system_schemas import Missed, PauseState


def pause_all(server: str | None, note: str | None) -> int:
    """Let no trigger fire."""
    with find_service(server).client() as client:
        return _say(client.pause_all(note))


def resume_all(server: str | None, missed: str | None) -> int:
    """Let all triggers fire again."""
    with find_service(server).client() as client:
        return _say(client.resume_all(cast(Missed | None, missed)))


def _say(state: PauseState) -> int:
    note = f": {state.note}" if state.note else ""
    if state.paused:
        typer.echo(f"all triggers are paused since {tables.cell(state.at)}{note}")
    else:
        typer.echo("no pause of all triggers holds")
    if state.paused_here:
        typer.echo("the service itself was started with --paused, so nothing fires there", err=True)
    return Exit.OK
