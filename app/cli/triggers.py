"""`runwright triggers`: what starts runs by itself."""

import sys
from collections.abc import Mapping
from textwrap import shorten
from typing import Final, cast

import typer

from app.cli import tables
from app.cli.exits import Exit
from app.cli.explain import moment_of, zone_of
from app.cli.runs import started
from app.cli.service import find_service
from app.cli.variables import runtime_variables
from app.client import PipelineSchedule, Slot
from app.models.explain_schemas import MissedSlots
from app.models.system_schemas import Missed

#: So much of an error is in a list; `show` has all of it.
_ERROR_WIDTH: Final = 80


def ls(server: str | None, pipelines: list[str] | None, statuses: list[str] | None, output: str) -> int:
    """Show triggers."""
    with find_service(server).client() as client:
        found = list(client.schedules(pipeline_uuid=pipelines, status=statuses))
    tables.show_all(found, _row, output, empty="no triggers")
    return Exit.OK


def _row(trigger: PipelineSchedule) -> dict[str, object]:
    return {
        "id": trigger.id,
        "pipeline": trigger.pipeline_uuid,
        "name": trigger.name,
        "type": trigger.schedule_type,
        "interval": trigger.schedule_interval,
        "status": "error" if trigger.error else "ended" if trigger.ended else trigger.status,
        "next": trigger.next_execution_date,
        "error": shorten(trigger.error or "", _ERROR_WIDTH, placeholder=" …"),
    }


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


def resume(server: str | None, trigger_id: int, missed: str | None) -> int:
    """Let it fire again; who has not said what becomes of the slots that were due meanwhile is asked."""
    with find_service(server).client() as client:
        chosen = missed or _asked(client.missed(trigger_id), trigger_id)
        return _say(client.resume(trigger_id, cast(Missed | None, chosen)))


def _asked(found: MissedSlots, trigger_id: int) -> str | None:
    """What becomes of the missed slots: asked on a terminal, else skipped with a line that says so."""
    if not found.count:
        return None
    more = "more than " if found.capped else ""
    what = f"trigger {trigger_id}: {more}{found.count} slots were due while it was paused"
    when = f"{tables.cell(found.first)} to {tables.cell(found.last)}"
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        typer.echo(f"{what} ({when}): skipped. To run them: --missed latest, or all.", err=True)
        return "skip"
    typer.echo(f"{what} ({when}):")
    for name, choice in found.choices.items():
        typer.echo(
            f"  {name:<7} {choice.runs} run{'' if choice.runs == 1 else 's'}, {choice.dropped} dropped"
        )
    answer = ""
    while answer not in found.choices:
        answer = typer.prompt("skip, latest or all", default="skip").strip().lower()
    return answer


def _say(trigger: PipelineSchedule) -> int:
    due = f", next: {tables.cell(trigger.next_execution_date)}" if trigger.next_execution_date else ""
    typer.echo(f"trigger {trigger.id} ({trigger.pipeline_uuid}/{trigger.name}) is {trigger.status}{due}")
    return Exit.OK


def slots(
    server: str | None,
    trigger_id: int,
    outcomes: list[str] | None,
    since: str | None,
    limit: int,
    output: str,
) -> int:
    """Show what became of its slots."""
    with find_service(server).client() as client:
        zone = zone_of(client, trigger_id)[0] if since else None
        start = moment_of(since, zone, "--since") if since and zone else None
        found = list(client.slots(trigger_id, outcome=outcomes, since=start, limit=limit))
    tables.show_all(found, _slot_row, output, empty="no slot has been due yet")
    return Exit.OK


def _slot_row(slot: Slot) -> dict[str, object]:
    return {
        "execution date": slot.execution_date,
        "until": slot.until,
        "slots": slot.count,
        "outcome": slot.outcome,
        "reason": slot.reason,
        "run": slot.pipeline_run_id,
    }


def trigger(server: str | None, trigger_id: int, runtime_vars: str | None, watch: bool) -> int:
    """Start a run of it."""
    variables = runtime_variables(runtime_vars)
    service = find_service(server)
    with service.client() as client:
        run = client.trigger(trigger_id, variables)
    return started(service, run, watch)
