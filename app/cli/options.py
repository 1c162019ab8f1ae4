"""Options and arguments that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

_OUTPUTS = ("table", "json")
_MISSED = ("skip", "latest", "all")


def _known(wanted: str) -> str:
    if wanted not in _OUTPUTS:
        raise typer.BadParameter("must be table or json")
    return wanted


def _missed(wanted: str | None) -> str | None:
    if wanted not in (None, *_MISSED):
        raise typer.BadParameter("must be skip, latest or all")
    return wanted


def group(about: str) -> typer.Typer:
    """A command that has commands."""
    return typer.Typer(help=about, no_args_is_help=True)


Project = Annotated[
    Path, typer.Argument(metavar="PROJECT", help="Project folder.", show_default="the current one")
]
Output = Annotated[
    str,
    typer.Option("-o", "--output", metavar="table|json", callback=_known, help="How the result is shown."),
]
DatabaseUrl = Annotated[
    str | None, typer.Option(metavar="URL", help="postgresql://…; SQLite in the project if not given.")
]
RuntimeVars = Annotated[
    str | None, typer.Option("--runtime-vars", metavar="JSON", help="Runtime variables, a JSON object.")
]
Server = Annotated[
    str | None,
    typer.Option(
        "-s",
        "--server",
        metavar="URL|PROJECT",
        help="Address of the service, or the project folder that one serves here.",
        show_default="RUNWRIGHT_URL, or the current folder",
    ),
]
RunId = Annotated[int, typer.Argument(metavar="RUN", min=1, help="Id of the pipeline run.")]
TriggerId = Annotated[int, typer.Argument(metavar="TRIGGER", min=1, help="Id of the trigger.")]
PipelineUuid = Annotated[str, typer.Argument(metavar="PIPELINE", help="Name of the pipeline's folder.")]
MissedSlots = Annotated[
    str | None,
    typer.Option(
        "--missed",
        metavar="skip|latest|all",
        callback=_missed,
        help="What becomes of slots that were due meanwhile.",
    ),
]
