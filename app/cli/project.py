"""From a folder on the command line to settings, the same way for every command."""

import errno
import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from app.errors import NotFound, StartRefused
from app.pipelines.catalogue import FOLDER, Catalogue
from app.pipelines.problems import ProjectInvalid
from app.pipelines.project import FILE, ProjectConfig, load_project
from app.settings import Settings, environment, load


def open_project(folder: Path, **command_line: Any) -> tuple[ProjectConfig, Settings]:
    """A project and its settings. Raises NotFound without such a folder, StartRefused for senseless settings."""
    root = project_folder(folder)
    project = load_project(root, environment())
    return project, _settings(root, section=project.settings, **command_line)


def _settings(root: Path, **given: Any) -> Settings:
    try:
        return load(root, **given)
    except ValidationError as error:
        fault = error.errors()[0]
        name = "RUNWRIGHT_" + "_".join(str(part) for part in fault["loc"]).upper()
        raise StartRefused(
            f"{name}: {fault['msg'].removeprefix('Value error, ')}",
            hint="Mend the setting or the project's metadata.yaml.",
        ) from None
    except OSError as error:
        raise StartRefused(f"A setting's file cannot be read: {error.filename}: {error.strerror}") from None


def read_project(folder: Path) -> Catalogue:
    """The definitions of a project as its service reads them; a fault in its own file is one among the others.

    Raises NotFound without such a folder, StartRefused for senseless settings.
    """
    from app.scheduler.catalogues import fresh_catalogue  # much: not for those who look for a service

    root = project_folder(folder)
    try:
        _, settings = open_project(root)
    except ProjectInvalid:
        settings = _settings(root)
    return fresh_catalogue(root, settings.env)


def project_folder(folder: Path) -> Path:
    """The absolute path of a project. Raises NotFound for a folder that has nothing of one."""
    root = folder.resolve()
    if not root.is_dir():
        raise NotFound(f"There is no project folder '{folder}'.")
    if not (root / FILE).exists() and not (root / FOLDER).is_dir():
        raise NotFound(
            f"'{folder}' is no project: it has neither {FILE} nor {FOLDER}/.",
            hint="Give the folder that holds the pipelines/ folder.",
        )
    return root


def prepare_home(home: Path) -> None:
    """Make the folder of the service's state, out of the project's version control."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        ignore = home / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")
        if not os.access(home, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise StartRefused(
            f"The state of the service cannot be kept in {home}: {error.strerror or error}.",
            hint="Set RUNWRIGHT_HOME to a folder that can be written.",
        ) from None
