"""From a folder on the command line to settings, the same way for every command."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from app.errors import NotFound, StartRefused
from app.pipelines.project import ProjectConfig, load_project
from app.settings import Settings, environment, load


def open_project(folder: Path, **command_line: Any) -> tuple[ProjectConfig, Settings]:
    """A project and its settings. Raises NotFound without such a folder, StartRefused for senseless settings."""
    root = folder.resolve()
    if not root.is_dir():
        raise NotFound(f"There is no project folder '{folder}'.")
    project = load_project(root, environment())
    try:
        return project, load(root, section=project.settings, **command_line)
    except ValidationError as error:
        fault = error.errors()[0]
        name = "RUNWRIGHT_" + "_".join(str(part) for part in fault["loc"]).upper()
        raise StartRefused(
            f"{name}: {fault['msg']}", hint="Mend the setting or the project's metadata.yaml."
        ) from None
    except OSError as error:
        raise StartRefused(f"A setting's file cannot be read: {error.filename}: {error.strerror}") from None


def prepare_home(home: Path) -> None:
    """Make the folder of the service's state, out of the project's version control."""
    home.mkdir(parents=True, exist_ok=True)
    ignore = home / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")
