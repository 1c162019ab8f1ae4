"""`runwright triggers next`: what fires next, by the service, or by the files of a project without one."""

from pathlib import Path

import typer

from app import clock
from app.cli import tables
from app.cli.exits import Exit
from app.cli.project import project_folder
from app.cli.service import find_service
from app.client import Unreachable
from app.models.explain_schemas import UpcomingSlot
from app.models.states import ScheduleStatus, ScheduleType
from app.pipelines.catalogue import Catalogue
from app.scheduler import ahead, catchup
from app.settings import environment


def show_next(
    server: str | None, trigger_id: int | None, pipelines: list[str] | None, count: int, output: str
) -> int:
    """Show the next slots of all active triggers, or of one."""
    try:
        with find_service(server).client() as client:
            found = client.upcoming(trigger_id, pipeline_uuid=pipelines, count=count).items
    except Unreachable as error:
        if trigger_id is not None or not _is_folder(server):
            raise
        typer.echo(f"{error.detail} These are the triggers of its files:", err=True)
        rows, plain = _of_files(Path(server or ""), pipelines, count)
    else:
        plain = [slot.model_dump(mode="json") for slot in found]
        rows = [_row(slot, slot.pipeline_schedule_id, slot.pipeline_uuid, slot.name) for slot in found]
    tables.show(plain if output == "json" else rows, output, empty="nothing is to fire")
    return Exit.OK


def _is_folder(server: str | None) -> bool:
    return "://" not in (server or environment().get("RUNWRIGHT_URL") or "")


def _of_files(
    folder: Path, pipelines: list[str] | None, count: int
) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    catalogue = Catalogue(project_folder(folder), environment(), catchup.judge)
    catalogue.refresh()
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
