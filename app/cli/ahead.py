"""`runwright triggers next`: what fires next, by the service, or by the files of a project without one."""

from pathlib import Path

import typer

from app import clock
from app.cli import tables
from app.cli.exits import Exit
from app.cli.project import read_project
from app.cli.service import find_service, served_or_alone
from app.client import Client
from app.models.explain_schemas import UpcomingRun, UpcomingSlot
from app.models.states import ScheduleStatus, ScheduleType
from app.scheduler import ahead

#: for a person, and for a program
_Shown = tuple[list[dict[str, object]], list[dict[str, object]]]


def show_next(
    server: str | None, trigger_id: int | None, pipelines: list[str] | None, count: int, output: str
) -> int:
    """Show the next slots of all active triggers, or of one."""

    def ask(client: Client) -> _Shown:
        return _of_service(client.upcoming(trigger_id, pipeline_uuid=pipelines, count=count).items)

    if trigger_id is None:
        rows, plain = served_or_alone(server, ask, lambda folder: _of_files(folder, pipelines, count))
    else:  # only the service knows ids
        with find_service(server).client() as client:
            rows, plain = ask(client)
    tables.show(plain if output == "json" else rows, output, empty="nothing is to fire")
    return Exit.OK


def _of_service(found: list[UpcomingRun]) -> _Shown:
    rows = [_row(slot, slot.pipeline_schedule_id, slot.pipeline_uuid, slot.name) for slot in found]
    return rows, [slot.model_dump(mode="json") for slot in found]


def _of_files(folder: Path, pipelines: list[str] | None, count: int) -> _Shown:
    typer.echo(
        f"No service is running for {folder.resolve()}. These are the triggers of its files:", err=True
    )
    catalogue = read_project(folder)
    now = clock.now()
    entries = [
        ahead.row_of(entry, now=now)
        for entry in catalogue.triggers()
        if entry.status is ScheduleStatus.ACTIVE
        and entry.schedule_type is ScheduleType.TIME
        and entry.error is None
        and (not pipelines or entry.pipeline_uuid in pipelines)
    ]
    found = ahead.merged(entries, catalogue.project, now=now, count=count)
    slots = [(slot, UpcomingSlot.model_validate(slot)) for slot in found]
    rows = [_row(shown, None, slot.pipeline_uuid, slot.name) for slot, shown in slots]
    plain: list[dict[str, object]] = [
        {
            "pipeline_schedule_id": None,
            "pipeline_uuid": slot.pipeline_uuid,
            "name": slot.name,
            **shown.model_dump(mode="json"),
        }
        for slot, shown in slots
    ]
    return rows, plain


def _row(slot: UpcomingSlot, trigger_id: int | None, pipeline_uuid: str, name: str) -> dict[str, object]:
    starts = slot.starts_at
    return {
        "id": trigger_id,
        "trigger": f"{pipeline_uuid}/{name}",
        "execution date": f"{slot.execution_date:%a %Y-%m-%d %H:%M:%S %z}",
        "starts": "no run" if starts is None else "" if starts == slot.execution_date else starts,
        "notes": "; ".join(note.text for note in slot.notes),
    }
