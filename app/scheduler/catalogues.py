"""The files of a project as the scheduler reads them: for its environment, judged by the timetable."""

from pathlib import Path

from app.pipelines.catalogue import Catalogue
from app.scheduler import catchup
from app.settings import environment


def catalogue_of(root: Path, env: str) -> Catalogue:
    """A project's pipelines and triggers, empty until its first refresh; `env` is what `ENV` says to its files."""
    return Catalogue(root, {**environment(), "ENV": env}, catchup.judge)


def fresh_catalogue(root: Path, env: str) -> Catalogue:
    """The same as the files are now, read by nobody else: a look at it takes no news from the service."""
    found = catalogue_of(root, env)
    found.refresh()
    return found
