"""`runwright validate`: every finding in a project's definitions, with file and line."""

from dataclasses import asdict
from pathlib import Path

from app.cli.exits import Exit
from app.cli.project import read_project
from app.cli.tables import show
from app.pipelines.validate import findings


def validate_project(folder: Path, output: str) -> int:
    """Show what is wrong; the exit code says whether anything is invalid."""
    catalogue = read_project(folder)
    found = findings(catalogue)
    if output == "json":
        show([asdict(finding) for finding in found], output)
    else:
        counts = f"pipelines: {len(catalogue.entries())}, triggers: {len(catalogue.triggers())}"
        rows = [{"level": finding.level, "finding": str(finding)} for finding in found]
        show(rows, output, empty=f"valid ({counts})")
    return Exit.FAILED if any(finding.level == "error" for finding in found) else Exit.OK
