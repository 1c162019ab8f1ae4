"""`runwright validate`: every finding in a project's definitions, with file and line."""

from collections.abc import Iterator
from pathlib import Path

from app.cli.exits import Exit
from app.cli.tables import show
from app.errors import NotFound
from app.pipelines.catalogue import Catalogue
from app.scheduler import timetable
from app.settings import environment


def validate_project(folder: Path, output: str) -> int:
    """Show what is wrong; the exit code says whether anything is invalid."""
    root = folder.resolve()
    if not root.is_dir():
        raise NotFound(f"There is no project folder '{folder}'.")
    catalogue = Catalogue(root, environment(), timetable.parse)
    catalogue.refresh()
    found = list(_findings(catalogue))
    counts = f"pipelines: {len(catalogue.entries())}, triggers: {len(catalogue.triggers())}"
    show(found, output, empty=f"valid ({counts})")
    return Exit.FAILED if any(row["level"] == "error" for row in found) else Exit.OK


def _findings(catalogue: Catalogue) -> Iterator[dict[str, object]]:
    if catalogue.project_error is not None:
        yield _finding("error", "project", catalogue.project_error)
    for text in catalogue.project.warnings:
        yield _finding("warning", "project", text)
    for entry in catalogue.entries():
        if entry.error is not None:
            yield _finding("error", entry.uuid, entry.error)
        for text in entry.warnings:
            yield _finding("warning", entry.uuid, text)
    for trigger in catalogue.triggers():
        if trigger.error is not None:
            yield _finding("error", f"{trigger.pipeline_uuid}/{trigger.name}", trigger.error)
    for error in catalogue.trigger_errors():
        yield _finding("error", "triggers", error)


def _finding(level: str, subject: str, text: object) -> dict[str, object]:
    return {"level": level, "subject": subject, "finding": str(text)}
