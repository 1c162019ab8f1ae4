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

Project = Annotated[
    Path, typer.Argument(metavar="PROJECT", help="Project folder.", show_default="the current one")
]
Output = Annotated[str, typer.Option("-o", "--output", metavar="table|json", help="How the list is shown.")]
_OUTPUTS = ("table", "json")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"runwright {__version__}")
        raise typer.Exit


@program.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@program.command()
def run(
    project_path: Annotated[Path, typer.Argument(metavar="PROJECT", help="Project folder.")],
    pipeline_uuid: Annotated[str, typer.Argument(metavar="PIPELINE", help="Name of the pipeline's folder.")],
    runtime_vars: Annotated[
        str | None, typer.Option("--runtime-vars", metavar="JSON", help="Runtime variables, a JSON object.")
    ] = None,
    block_uuid: Annotated[
        str | None,
        typer.Option(
            "--block-uuid", metavar="BLOCK", help="This block only, with its upstreams' last outputs."
        ),
    ] = None,
    skip_sensors: Annotated[bool, typer.Option("--skip-sensors", help="Take sensors as satisfied.")] = False,
) -> None:
    """Run a pipeline once, without a server. Exits with 0 when it completed, with 1 when it failed."""
    with explained():
        from app.cli.run import run_once

        raise typer.Exit(run_once(project_path, pipeline_uuid, runtime_vars, block_uuid, skip_sensors))


@program.command()
def start(
    project_path: Project = Path(),
    host: Annotated[str | None, typer.Option(help="Address to serve on (127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(envvar="PORT", min=0, max=65535, help="Port (8000).")] = None,
    database_url: Annotated[
        str | None, typer.Option(metavar="URL", help="postgresql://…; SQLite in the project if not given.")
    ] = None,
) -> None:
    """Serve a project: triggers, the API and its page."""
    with explained():
        from app.cli.start import start_service

        raise typer.Exit(start_service(project_path, host=host, port=port, database_url=database_url))


@program.command()
def validate(project_path: Project = Path(), output: Output = "table") -> None:
    """Check every pipeline, trigger and block file. Exits with 1 when one is invalid."""
    with explained():
        from app.cli.validate import validate_project

        raise typer.Exit(validate_project(project_path, _output(output)))


@program.command()
def doctor(project_path: Project = Path(), output: Output = "table") -> None:
    """Check that this machine can run the project. Exits with 1 when something is missing."""
    with explained():
        from app.cli.doctor import examine

        raise typer.Exit(examine(project_path, _output(output)))


@program.command()
def import_mage(
    project_path: Annotated[Path, typer.Argument(metavar="PROJECT", help="Project folder.")],
    database_url: Annotated[
        str,
        typer.Option(
            envvar="MAGE_DATABASE_CONNECTION_URL",
            metavar="URL",
            help="Mage's own database: sqlite:///…/mage-ai.db or postgresql://… It is only read.",
        ),
    ],
    into: Annotated[
        str | None, typer.Option(metavar="URL", help="Runwright's database; as for `start` if not given.")
    ] = None,
    repo_path: Annotated[
        str | None, typer.Option(metavar="PATH", help="The project's path where Mage ran, if another.")
    ] = None,
    variables_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where Mage kept variables, if not where it does.")
    ] = None,
    write_variables: Annotated[
        bool, typer.Option("--write-variables", help="Write global variables into the pipelines' files.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report only, change nothing.")] = False,
    output: Output = "table",
) -> None:
    """Take over triggers from Mage, with their ids and tokens. Exits with 1 when something was refused."""
    with explained():
        from app.cli.import_mage import Wishes, import_from_mage

        wishes = Wishes(
            into=into,
            repo_path=repo_path,
            variables_dir=variables_dir,
            write_variables=write_variables,
            dry_run=dry_run,
        )
        raise typer.Exit(import_from_mage(project_path, database_url, wishes, _output(output)))


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

        raise typer.Exit(explain_interval(interval, timezone, count, _output(output)))


def _output(wanted: str) -> str:
    if wanted not in _OUTPUTS:
        raise typer.BadParameter("must be table or json", param_hint="--output")
    return wanted
