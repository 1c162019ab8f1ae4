"""The commands that speak to a running service over HTTP. Each body is in a file of its own."""

from pathlib import Path
from typing import Annotated

import typer

from app.cli.exits import explained
from app.cli.options import (
    DatabaseUrl,
    MissedSlots,
    Output,
    PipelineUuid,
    Project,
    RunId,
    RuntimeVars,
    Server,
    TriggerId,
    group,
)

pipelines = group("Look at the pipelines of a running service.")
triggers = group("Look at triggers, and let them fire or not.")
runs = group("Look at pipeline runs, start, stop and repeat them.")
secrets = group(
    "Keep values that blocks ask for by name. Works with a service, or alone in a project folder."
)


def _known_change(wanted: str | None) -> str | None:
    if wanted not in (None, "accept", "rerun"):
        raise typer.BadParameter("must be accept or rerun")
    return wanted


Limit = Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")]
OfPipelines = Annotated[
    list[str] | None, typer.Option("--pipeline", metavar="PIPELINE", help="Of this pipeline. Repeatable.")
]
WithStatus = Annotated[
    list[str] | None, typer.Option("--status", metavar="STATUS", help="With this status. Repeatable.")
]
Changed = Annotated[
    str | None,
    typer.Option(
        metavar="accept|rerun",
        callback=_known_change,
        help="What to do with finished blocks whose file has changed since.",
    ),
]
SecretName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the secret.")]
Watch = Annotated[bool, typer.Option("--watch", help="Show the run until it is over; exit as it ended.")]


@pipelines.command("ls")
def list_pipelines(server: Server = None, output: Output = "table") -> None:
    """The pipelines of the project, with the error of those that are invalid."""
    with explained():
        from app.cli.pipelines import ls

        raise typer.Exit(ls(server, output))


@pipelines.command("show")
def show_pipeline(pipeline_uuid: PipelineUuid, server: Server = None, output: Output = "table") -> None:
    """One pipeline and its blocks."""
    with explained():
        from app.cli.pipelines import show

        raise typer.Exit(show(server, pipeline_uuid, output))


@triggers.command("ls")
def list_triggers(
    pipeline: OfPipelines = None, status: WithStatus = None, server: Server = None, output: Output = "table"
) -> None:
    """Triggers, with what they fire for next."""
    with explained():
        from app.cli.triggers import ls

        raise typer.Exit(ls(server, pipeline, status, output))


@triggers.command("show")
def show_trigger(trigger_id: TriggerId, server: Server = None, output: Output = "table") -> None:
    """One trigger."""
    with explained():
        from app.cli.triggers import show

        raise typer.Exit(show(server, trigger_id, output))


@triggers.command("pause")
def pause_trigger(trigger_id: TriggerId, server: Server = None) -> None:
    """Let a trigger fire no more."""
    with explained():
        from app.cli.triggers import pause

        raise typer.Exit(pause(server, trigger_id))


@triggers.command("resume")
def resume_trigger(trigger_id: TriggerId, missed: MissedSlots = None, server: Server = None) -> None:
    """Let a trigger fire again. On a terminal it asks about slots that were due meanwhile, else they are skipped."""
    with explained():
        from app.cli.triggers import resume

        raise typer.Exit(resume(server, trigger_id, missed))


@triggers.command("next")
def next_slots(
    trigger_id: Annotated[
        int | None, typer.Argument(metavar="TRIGGER", min=1, help="Id of one trigger; all without it.")
    ] = None,
    pipeline: OfPipelines = None,
    count: Annotated[int, typer.Option("-n", "--count", min=1, max=200, help="How many slots.")] = 10,
    server: Server = None,
    output: Output = "table",
) -> None:
    """What fires next. Without a running service: by the files of the project."""
    with explained():
        from app.cli.ahead import show_next

        raise typer.Exit(show_next(server, trigger_id, pipeline, count, output))


@triggers.command("apply")
def apply_triggers(
    project_path: Project = Path(),
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete triggers whose entry has gone from its file.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report only, change nothing.")] = False,
    database_url: DatabaseUrl = None,
    server: Server = None,
    output: Output = "table",
) -> None:
    """Bring the triggers to their files: by the service that serves the project, else in its database."""
    with explained():
        from app.cli.apply import apply

        raise typer.Exit(apply(project_path, server, database_url, prune, dry_run, output))


@triggers.command("create")
def create_trigger(
    pipeline_uuid: PipelineUuid,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the trigger.")],
    interval: Annotated[
        str | None, typer.Option(metavar="EXPR", help="When it fires. Without it, it is an API trigger.")
    ] = None,
    timezone: Annotated[str | None, typer.Option(metavar="ZONE", help="Time zone of the interval.")] = None,
    runtime_vars: RuntimeVars = None,
    inactive: Annotated[bool, typer.Option("--inactive", help="It does not fire yet.")] = False,
    server: Server = None,
    output: Output = "table",
) -> None:
    """Make a trigger. The token of an API trigger is shown this once."""
    with explained():
        from app.cli.triggers import create

        fields = {"schedule_interval": interval, "timezone": timezone}
        raise typer.Exit(create(server, pipeline_uuid, name, fields, runtime_vars, inactive, output))


@triggers.command("delete")
def delete_trigger(trigger_id: TriggerId, server: Server = None) -> None:
    """Take a trigger away; its runs stay."""
    with explained():
        from app.cli.triggers import delete

        raise typer.Exit(delete(server, trigger_id))


@triggers.command("rotate-token")
def rotate_token(trigger_id: TriggerId, server: Server = None) -> None:
    """Print a new token for an API trigger; the old one ends."""
    with explained():
        from app.cli.triggers import rotate_token

        raise typer.Exit(rotate_token(server, trigger_id))


@triggers.command("trigger")
def start_trigger(
    trigger_id: TriggerId, runtime_vars: RuntimeVars = None, watch: Watch = False, server: Server = None
) -> None:
    """Start a run of a trigger now, whether it is active or not."""
    with explained():
        from app.cli.triggers import trigger

        raise typer.Exit(trigger(server, trigger_id, runtime_vars, watch))


@triggers.command("slots")
def list_slots(
    trigger_id: TriggerId,
    outcome: Annotated[
        list[str] | None,
        typer.Option("--outcome", metavar="run|skipped|missed", help="With this outcome. Repeatable."),
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Dated then or later; as --at of `explain`.")
    ] = None,
    limit: Limit = 20,
    server: Server = None,
    output: Output = "table",
) -> None:
    """What became of a trigger's slots, newest first: run, skipped or missed, and why."""
    with explained():
        from app.cli.triggers import slots

        raise typer.Exit(slots(server, trigger_id, outcome, since, limit, output))


@triggers.command("explain")
def explain_trigger(
    trigger_id: TriggerId,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="The moment; without an offset in the trigger's zone.",
            show_default="now",
        ),
    ] = None,
    server: Server = None,
    output: Output = "table",
) -> None:
    """Why a trigger did, did not or will start a run at a moment."""
    with explained():
        from app.cli.explain import trigger

        raise typer.Exit(trigger(server, trigger_id, at, output))


@runs.command("ls")
def list_runs(
    pipeline: OfPipelines = None,
    status: WithStatus = None,
    trigger: Annotated[
        list[int] | None, typer.Option("--trigger", metavar="ID", help="Of this trigger. Repeatable.")
    ] = None,
    limit: Limit = 20,
    server: Server = None,
    output: Output = "table",
) -> None:
    """Runs, newest first."""
    with explained():
        from app.cli.runs import ls

        raise typer.Exit(ls(server, pipeline, status, trigger, limit, output))


@runs.command("show")
def show_run(run_id: RunId, server: Server = None, output: Output = "table") -> None:
    """One run, its block runs, and why it failed."""
    with explained():
        from app.cli.runs import show

        raise typer.Exit(show(server, run_id, output))


@runs.command("explain")
def explain_run(run_id: RunId, server: Server = None, output: Output = "table") -> None:
    """Why a run waits, what it is doing, or why it failed or was cancelled."""
    with explained():
        from app.cli.explain import run

        raise typer.Exit(run(server, run_id, output))


@runs.command("logs")
def show_log(
    run_id: RunId,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the run is over.")] = False,
    block: Annotated[str | None, typer.Option(metavar="BLOCK", help="Of this block only.")] = None,
    server: Server = None,
    output: Output = "table",
) -> None:
    """The log of a run."""
    with explained():
        from app.cli.runs import log

        raise typer.Exit(log(server, run_id, block, follow, output))


@runs.command("watch")
def watch_run(
    run_id: RunId,
    timeout: Annotated[float | None, typer.Option(min=0, metavar="SECONDS", help="Watch no longer.")] = None,
    server: Server = None,
) -> None:
    """Show a run until it is over. Exits with 0 when it completed, with 1 when not, with 6 when it goes on."""
    with explained():
        from app.cli.watch import watch

        raise typer.Exit(watch(server, run_id, timeout))


@runs.command("launch")
def launch_run(
    pipeline_uuid: PipelineUuid, runtime_vars: RuntimeVars = None, watch: Watch = False, server: Server = None
) -> None:
    """Start a run of a pipeline now."""
    with explained():
        from app.cli.runs import launch

        raise typer.Exit(launch(server, pipeline_uuid, runtime_vars, watch))


@runs.command("cancel")
def cancel_run(run_id: RunId, server: Server = None) -> None:
    """End a run now."""
    with explained():
        from app.cli.runs import cancel

        raise typer.Exit(cancel(server, run_id))


@runs.command("retry")
def retry_run(
    run_id: RunId,
    source: Annotated[
        str, typer.Option("--from", metavar="failed|start|BLOCK", help="What runs again.")
    ] = "failed",
    runtime_vars: RuntimeVars = None,
    changed: Changed = None,
    watch: Watch = False,
    server: Server = None,
) -> None:
    """Run a finished run again, as a new run."""
    with explained():
        from app.cli.runs import retry

        raise typer.Exit(retry(server, run_id, source, runtime_vars, changed, watch))


@secrets.command("ls")
def list_secrets(server: Server = None, output: Output = "table") -> None:
    """The names of the secrets. Values are never shown."""
    with explained():
        from app.cli.secrets import ls

        raise typer.Exit(ls(server, output))


@secrets.command("set")
def set_secret(name: SecretName, server: Server = None) -> None:
    """Make a secret or change it. The value is asked for, or read from standard input."""
    with explained():
        from app.cli.secrets import put

        raise typer.Exit(put(server, name))


@secrets.command("rm")
def remove_secret(name: SecretName, server: Server = None) -> None:
    """Forget a secret."""
    with explained():
        from app.cli.secrets import remove

        raise typer.Exit(remove(server, name))


@secrets.command("rotate")
def rotate_secrets(server: Server = None) -> None:
    """Seal all secrets with the first key of RUNWRIGHT_SECRET_KEY, or with a new one in the key file."""
    with explained():
        from app.cli.secrets import rotate

        raise typer.Exit(rotate(server))


@secrets.command("key")
def make_secret_key() -> None:
    """Print a new key for RUNWRIGHT_SECRET_KEY."""
    with explained():
        from app.cli.secrets import key

        raise typer.Exit(key())
