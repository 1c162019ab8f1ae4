"""`runwright runs`: what has run, runs, and shall run."""

import sys
from collections.abc import Iterable
from typing import Any, Final

import typer

from app.cli import tables
from app.cli.exits import Exit
from app.cli.plain import span
from app.cli.service import Service, find_service
from app.cli.variables import runtime_variables
from app.client import BlockRun, LogLine, PipelineRun, ServiceError
from app.errors import Conflict

_CHANGED: Final = "Run them again: --changed rerun. Keep what they left: --changed accept."


def ls(
    server: str | None,
    pipelines: list[str] | None,
    statuses: list[str] | None,
    triggers: list[int] | None,
    limit: int,
    output: str,
) -> int:
    """Show runs, newest first."""
    with find_service(server).client() as client:
        filters: dict[str, Any] = {"pipeline_uuid": pipelines, "status": statuses}
        found = list(client.runs(**filters, pipeline_schedule_id=triggers, limit=limit))
    tables.show_all(found, _row, output, empty="no runs")
    return Exit.OK


def _row(run: PipelineRun) -> dict[str, object]:
    return {
        "run": run.id,
        "pipeline": run.pipeline_uuid,
        "status": run.status,
        "cause": run.cause,
        "execution date": run.execution_date,
        "started": run.started_at,
        "took": _took(run),
    }


def _children(block: BlockRun) -> str | None:
    """Where the children of a block stand, in a few words."""
    if block.children is None:
        return None
    counts = ", ".join(f"{n} {status}" for status, n in (block.children_by_status or {}).items())
    return f"{block.children} children" + (f": {counts}" if counts else "")


def _took(thing: PipelineRun | BlockRun) -> str | None:
    if thing.started_at is None or thing.completed_at is None:
        return None
    return span((thing.completed_at - thing.started_at).total_seconds())


def show(server: str | None, run_id: int, output: str) -> int:
    """Show one run."""
    with find_service(server).client() as client:
        run = client.run(run_id)
    if output == "json":
        tables.show_one(run.model_dump(mode="json"), output)
        return Exit.OK
    more = ("status_reason", "pipeline_schedule_id", "retry_of", "variables", "event_variables")
    tables.show_one({**_row(run), **run.model_dump(include=set(more))}, output)
    rows = [
        {
            "block": block.block_uuid,
            "status": block.status,
            "attempts": _children(block) or block.attempt,
            "took": _took(block),
            "error": fault(block.error),
        }
        for block in run.block_runs or ()
    ]
    tables.show(rows, output)
    return Exit.OK


def fault(error: Any) -> str | None:
    """What went wrong, on one line."""
    if not error:
        return None
    where = f" ({error['file']}:{error['line']})" if error.get("file") and error.get("line") else ""
    return f"{error.get('type')}: {error.get('message')}".splitlines()[0] + where


def log(server: str | None, run_id: int, block: str | None, follow: bool, output: str) -> int:
    """Show the log; `follow`: until the run is over."""
    service = find_service(server)
    with service.client() as client:
        client.run(run_id)  # one that does not exist, or a service that does not answer, is told at once
    with service.client(patient=True) as client:
        lines = client.follow_logs if follow else client.logs
        _write(lines(run_id, block_uuid=block), output)
    return Exit.OK


def _write(lines: Iterable[LogLine], output: str) -> None:
    for line in lines:
        if output == "json":  # one object a line: a stream has no end to close a list at
            typer.echo(line.model_dump_json())
        else:
            where = f"{line.block_uuid} | " if line.block_uuid else ""
            typer.echo(f"{line.at.astimezone():%H:%M:%S} {where}{line.text}")


def launch(server: str | None, pipeline_uuid: str, runtime_vars: str | None, watch: bool) -> int:
    """Start a run of a pipeline."""
    variables = runtime_variables(runtime_vars)
    service = find_service(server)
    with service.client() as client:
        run = client.launch(pipeline_uuid, variables)
    return started(service, run, watch)


def started(service: Service, run: PipelineRun, watch: bool) -> int:
    """Say which run was started; watch it if that is wanted."""
    if watch:
        from app.cli.watch import follow

        return follow(service, run.id)
    typer.echo(f"run {run.id} of {run.pipeline_uuid} is {run.status}")
    return Exit.OK


def cancel(server: str | None, run_id: int) -> int:
    """End a run."""
    with find_service(server).client() as client:
        run = client.cancel(run_id)
    typer.echo(f"run {run.id} of {run.pipeline_uuid} is {run.status}")
    return Exit.OK


def retry(
    server: str | None, run_id: int, source: str, runtime_vars: str | None, changed: str | None, watch: bool
) -> int:
    """Run it again. What to do with finished blocks whose code has changed is asked on a terminal."""
    variables = runtime_variables(runtime_vars) or None
    service = find_service(server)
    with service.client() as client:
        try:
            run = client.retry(run_id, source, variables, changed=changed)
        except ServiceError as error:
            if error.code != "code_changed":
                raise
            if not sys.stdin.isatty():
                raise Conflict(error.detail, hint=_CHANGED) from None
            typer.echo(error.detail, err=True)
            again = typer.confirm("Run them again (no: keep what they left)?", err=True)
            run = client.retry(run_id, source, variables, changed="rerun" if again else "accept")
    return started(service, run, watch)
