"""The commands and their options; each body is in a file of its own and imported when it runs."""

from pathlib import Path
from typing import Annotated

import typer

from app import __version__
from app.cli import limit_commands, local, remote
from app.cli.exits import explained
from app.cli.options import (
    DatabaseUrl,
    MissedSlots,
    Output,
    PipelineUuid,
    Project,
    RuntimeVars,
    Server,
)

program = typer.Typer(
    help="Runwright schedules and runs data pipelines.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for name, commands in {
    "pipelines": remote.pipelines,
    "triggers": remote.triggers,
    "runs": remote.runs,
    "secrets": remote.secrets,
    "limits": limit_commands.limits,
    "cron": local.cron,
    "db": local.db,
    "keys": local.keys,
}.items():
    program.add_typer(commands, name=name)


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
    pipeline_uuid: PipelineUuid,
    runtime_vars: RuntimeVars = None,
    block_uuid: Annotated[
        str | None,
        typer.Option(
            "--block-uuid", metavar="BLOCK", help="This block only, with its upstreams' last outputs."
        ),
    ] = None,
    with_upstream: Annotated[
        bool, typer.Option("--with-upstream", help="With --block-uuid: run everything above it too.")
    ] = False,
    skip_sensors: Annotated[bool, typer.Option("--skip-sensors", help="Take sensors as satisfied.")] = False,
) -> None:
    """Run a pipeline once, without a server. Exits with 0 when it completed, with 1 when it failed."""
    with explained():
        from app.cli.run import run_once

        parts = {"block_uuid": block_uuid, "with_upstream": with_upstream, "skip_sensors": skip_sensors}
        raise typer.Exit(run_once(project_path, pipeline_uuid, runtime_vars, **parts))


@program.command()
def start(
    project_path: Project = Path(),
    host: Annotated[str | None, typer.Option(help="Address to serve on (127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(envvar="PORT", min=0, max=65535, help="Port (8000).")] = None,
    database_url: DatabaseUrl = None,
    paused: Annotated[
        bool | None, typer.Option("--paused", help="Triggers do not fire; what is launched runs.")
    ] = None,
) -> None:
    """Serve a project: triggers, the API and its page."""
    with explained():
        from app.cli.start import start_service

        options = {"host": host, "port": port, "database_url": database_url, "paused": paused}
        raise typer.Exit(start_service(project_path, **options))


@program.command()
def init(project_path: Annotated[Path, typer.Argument(metavar="PROJECT", help="Folder to make.")]) -> None:
    """Make a small project that works: one pipeline, one trigger that is still inactive."""
    with explained():
        from app.cli.init import make_project

        raise typer.Exit(make_project(project_path))


@program.command()
def pause_all(
    note: Annotated[str | None, typer.Option(metavar="TEXT", help="Why; shown with the pause.")] = None,
    server: Server = None,
) -> None:
    """Pause all triggers, on every node and over restarts. Runs that exist go on."""
    with explained():
        from app.cli.pausing import pause_all

        raise typer.Exit(pause_all(server, note))


@program.command()
def resume_all(missed: MissedSlots = None, server: Server = None) -> None:
    """Let all triggers go on. Each one's own catch_up decides about slots that were due meanwhile."""
    with explained():
        from app.cli.pausing import resume_all

        raise typer.Exit(resume_all(server, missed))


@program.command("exec", context_settings={"allow_extra_args": True, "allow_interspersed_args": False})
def execute(
    context: typer.Context,
    script: Annotated[Path, typer.Argument(metavar="SCRIPT", help="A Python file; its arguments follow.")],
    server: Server = None,
) -> None:
    """Run a script whose `mage_ai…trigger_pipeline` starts pipelines of a running service."""
    with explained():
        from app.cli.script import execute

        raise typer.Exit(execute(server, script, context.args))


@program.command()
def validate(project_path: Project = Path(), output: Output = "table") -> None:
    """Check every pipeline, trigger and block file. Exits with 1 when one is invalid."""
    with explained():
        from app.cli.validate import validate_project

        raise typer.Exit(validate_project(project_path, output))


@program.command()
def doctor(
    project_path: Project = Path(), database_url: DatabaseUrl = None, output: Output = "table"
) -> None:
    """Check that this machine and the database can run the project. Exits with 1 when something cannot."""
    with explained():
        from app.cli.doctor import examine

        raise typer.Exit(examine(project_path, output, database_url))


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
        raise typer.Exit(import_from_mage(project_path, database_url, wishes, output))
