"""`runwright start`: the service in the foreground."""

from pathlib import Path
from typing import Any

from app.cli.logs import configure_logging
from app.cli.project import open_project, prepare_home
from app.server import serve


def start_service(folder: Path, **command_line: Any) -> int:
    """Serve until a signal comes; the exit code."""
    _, settings = open_project(folder, **command_line)
    configure_logging(settings.log_level)
    prepare_home(settings.home)
    return serve(settings)
