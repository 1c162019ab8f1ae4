"""`runwright triggers`: what starts runs by itself."""

from collections.abc import Mapping

import typer

from app.cli import tables
from app.cli.exits import Exit
from app.cli.runs import started
from app.cli.service import find_service
from app.cli.variables import runtime_variables
from app.client import PipelineSchedule


def ls(server: str | None, pipelines: list[str] | None, statuses: list[str] | None, output: str) -> int:
    """Show triggers."""
    with find_service(server).client() as client:
        found = list(client.schedules(pipeline_uuid=pipelines, status=statuses))
    if output == "json":
        tables.show([trigger.model_dump(mode="json") for trigger in found], output)
        return Exit.OK
    rows = [
        {
            "id": trigger.id,
            "pipeline": trigger.pipeline_uuid,
            "name": trigger.name,
            "type": trigger.schedule_type,
            "interval": trigger.schedule_interval,
            "status": "error" if trigger.error else trigger.status,
            "next": trigger.next_execution_date,
        }
        for trigger in found
    ]
    tables.show(rows, output, empty="no triggers")
    return Exit.OK


def show(server: str | None, trigger_id: int, output: str) -> int:
    """Show one trigger."""
    with find_service(server).client() as client:
        trigger = client.schedule(trigger_id)
    tables.show_one(trigger.model_dump(mode="json" if output == "json" else "python"), output)
    return Exit.OK


def create(
    server: str | None,
    pipeline_uuid: str,
    name: str,
    fields: Mapping[str, str | None],
    runtime_vars: str | None,
    inactive: bool,
    output: str,
) -> int:
    """Make one."""
    variables = runtime_variables(runtime_vars)
    with find_service(server).client() as client:
        made = client.create_schedule(
            pipeline_uuid,
            name,
            schedule_type="api" if fields["schedule_interval"] is None else "time",
            status="inactive" if inactive else "active",
            variables=variables,
            **fields,
        )
    tables.show_one(made.model_dump(mode="json" if output == "json" else "python"), output)
    return Exit.OK


def delete(server: str | None, trigger_id: int) -> int:
    """Take it away."""
    with find_service(server).client() as client:
        client.delete_schedule(trigger_id)
    typer.echo(f"trigger {trigger_id} is deleted")
    return Exit.OK


def rotate_token(server: str | None, trigger_id: int) -> int:
    """Show its new token."""
    with find_service(server).client() as client:
        typer.echo(client.rotate_token(trigger_id))
    return Exit.OK


def pause(server: str | None, trigger_id: int) -> int:
    """Let it fire no more."""
    with find_service(server).client() as client:
        return _say(client.pause(trigger_id))


def resume(server: str | None, trigger_id: int) -> int:
    """Let it fire again."""
    with find_service(server).client() as client:
        return _say(client.resume(trigger_id))


def _say(trigger: PipelineSchedule) -> int:
    due = f", next: {tables.cell(trigger.next_execution_date)}" if trigger.next_execution_date else ""
    typer.echo(f"trigger {trigger.id} ({trigger.pipeline_uuid}/{trigger.name}) is {trigger.status}{due}")
    return Exit.OK


def slots(server: str | None, trigger_id: int, limit: int, output: str) -> int:
    """Show what became of its slots."""
    with find_service(server).client() as client:
        found = list(client.slots(trigger_id, limit=limit))
    if output == "json":
        tables.show([slot.model_dump(mode="json") for slot in found], output)
        return Exit.OK
    rows = [
        {
            "execution date": slot.execution_date,
            "until": slot.until,
            "slots": slot.count,
            "outcome": slot.outcome,
            "reason": slot.reason,
            "run": slot.pipeline_run_id,
        }
        for slot in found
    ]
    tables.show(rows, output, empty="no slot has been due yet")
    return Exit.OK


def trigger(server: str | None, trigger_id: int, runtime_vars: str | None, watch: bool) -> int:
    """Start a run of it."""
    variables = runtime_variables(runtime_vars)
    service = find_service(server)
    with service.client() as client:
        run = client.trigger(trigger_id, variables)
    return started(service, run, watch)
