"""The `limits` commands, over HTTP; their bodies are in `limits.py`."""

from typing import Annotated

import typer

from app.cli.exits import explained
from app.cli.options import Output, Server, group

limits = group("How many runs may run at once: look, set, lift.")

Scope = Annotated[
    str,
    typer.Argument(
        metavar="SCOPE", help="global, pipeline:UUID, schedule:ID of a trigger, or key:KEY of runs."
    ),
]


@limits.command("ls")
def list_limits(server: Server = None, output: Output = "table") -> None:
    """Every limit, with what runs and what waits under it."""
    with explained():
        from app.cli.limits import ls

        raise typer.Exit(ls(server, output))


@limits.command("set")
def set_limit(
    scope: Scope,
    cap: Annotated[int, typer.Argument(min=0, metavar="N", help="Runs at once; 0: none may start.")],
    server: Server = None,
) -> None:
    """Set a limit. Raised, it lets waiting runs start at once; lowered, it ends none that run."""
    with explained():
        from app.cli.limits import put

        raise typer.Exit(put(server, scope, cap))


@limits.command("unset")
def unset_limit(scope: Scope, server: Server = None) -> None:
    """Lift a limit: what waited for it starts."""
    with explained():
        from app.cli.limits import unset

        raise typer.Exit(unset(server, scope))
