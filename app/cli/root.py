"""The commands and their options; each body is in a file of its own and imported when it runs."""

from pathlib import Path
from typing import Annotated

import typer

from app import __version__
from app.cli.exits import explained

program = typer.Typer(
    help="Runwright schedules and runs data pipelines.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
cron = typer.Typer(help="Look at schedule intervals.", no_args_is_help=True)
program.add_typer(cron, name="cron")

Project = Annotated[Path, typer.Argument(metavar="[PROJECT]", help="project folder", show_default="here")]
Output = Annotated[str, typer.Option("-o", "--output", metavar="table|json", help="how lists are shown")]
_OUTPUTS = ("table", "json")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"runwright {__version__}")
        raise typer.Exit


@program.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="show the version and exit")
    ] = False,
) -> None:
    pass


@program.command()
def run(
    project_path: Annotated[Path, typer.Argument(metavar="PROJECT", help="project folder")],
    pipeline_uuid: Annotated[str, typer.Argument(metavar="PIPELINE", help="folder name of the pipeline")],
    runtime_vars: Annotated[
        str | None, typer.Option("--runtime-vars", metavar="JSON", help="runtime variables, a JSON object")
    ] = None,
    block_uuid: Annotated[
        str | None,
        typer.Option(
            "--block-uuid", metavar="BLOCK", help="this block only, with its upstreams' last outputs"
        ),
    ] = None,
    skip_sensors: Annotated[bool, typer.Option("--skip-sensors", help="take sensors as satisfied")] = False,
) -> None:
    """Run a pipeline once, here, without a server; exit 0 when it completed, 1 when it failed."""
    with explained():
        from app.cli.run import run_once

        raise typer.Exit(run_once(project_path, pipeline_uuid, runtime_vars, block_uuid, skip_sensors))


@program.command()
def start(
    project_path: Project = Path(),
    host: Annotated[str | None, typer.Option(help="address to serve on (127.0.0.1)")] = None,
    port: Annotated[int | None, typer.Option(envvar="PORT", min=0, max=65535, help="port (8000)")] = None,
    database_url: Annotated[
        str | None, typer.Option(metavar="URL", help="postgresql://…; default SQLite in the project")
    ] = None,
) -> None:
    """Serve a project: triggers, the API and its page."""
    with explained():
        from app.cli.start import start_service

        raise typer.Exit(start_service(project_path, host=host, port=port, database_url=database_url))


@program.command()
def validate(project_path: Project = Path(), output: Output = "table") -> None:
    """Check every pipeline and trigger; exit 1 when one is invalid."""
    with explained():
        from app.cli.validate import validate_project

        raise typer.Exit(validate_project(project_path, _output(output)))


@program.command()
def doctor(project_path: Project = Path(), output: Output = "table") -> None:
    """Check that this machine can run the project; exit 1 when something is missing."""
    with explained():
        from app.cli.doctor import examine

        raise typer.Exit(examine(project_path, _output(output)))


@cron.command()
def explain(
    interval: Annotated[str, typer.Argument(metavar="EXPR", help="such as '0 6 * * 1-5' or @daily")],
    timezone: Annotated[str, typer.Option(help="zone of the expression")] = "UTC",
    count: Annotated[int, typer.Option(min=1, max=100, help="how many execution dates")] = 10,
    output: Output = "table",
) -> None:
    """The next execution dates of an interval."""
    with explained():
        from app.cli.cron import explain_interval

        raise typer.Exit(explain_interval(interval, timezone, count, _output(output)))


def _output(wanted: str) -> str:
    if wanted not in _OUTPUTS:
        raise typer.BadParameter("must be table or json", param_hint="--output")
    return wanted
