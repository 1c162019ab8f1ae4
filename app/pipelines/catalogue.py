"""All pipelines and triggers of a project folder, kept in step with the disk.

:meth:`Catalogue.refresh` is called about once a second, from any one thread; it reads only what changed and swaps
an immutable snapshot, so readers in other threads need no lock. What is broken is an entry with an error.
"""

import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from app.errors import PipelineInvalid, PipelineNotFound
from app.models.pipeline import Pipeline
from app.pipelines.folder import CatalogueEntry, Folder, Surroundings
from app.pipelines.problems import BadDefinition, DefinitionError, did_you_mean
from app.pipelines.project import FILE, ProjectConfig, parse_project
from app.pipelines.triggers import CheckInterval, TriggerEntry
from app.pipelines.watch import WatchedFile

__all__ = ["Catalogue", "CatalogueEntry", "DefinitionError", "TriggerEntry"]

FOLDER = "pipelines"
DEFAULT_ENV = "prod"


@dataclass(frozen=True, slots=True)
class _Snapshot:
    project: ProjectConfig
    project_error: DefinitionError | None = None
    entries: Mapping[str, CatalogueEntry] = field(default_factory=dict)
    triggers: tuple[TriggerEntry, ...] = ()
    unread_triggers: frozenset[str] = frozenset()


class Catalogue:
    """The pipelines and triggers of the project at `root`. Empty until the first :meth:`refresh`.

    `environ` is what `env_var()` in the project's file sees; its `ENV` (default `prod`) selects triggers.
    `check_interval` judges schedule intervals.
    """

    def __init__(
        self,
        root: Path,
        environ: Mapping[str, str] | None = None,
        check_interval: CheckInterval | None = None,
    ) -> None:
        self.root = root.resolve()
        environ = dict(environ or {})
        nothing = ProjectConfig(self.root, self.root.name, self.root.name)
        self._around = Surroundings(nothing, None, environ, environ.get("ENV") or DEFAULT_ENV, check_interval)
        self._lock = threading.Lock()
        self._project_file = WatchedFile(self.root, FILE)
        self._good_project: ProjectConfig | None = None
        self._project_error: DefinitionError | None = None
        self._folders: dict[str, Folder] | None = None
        self._snapshot = _Snapshot(nothing)

    @property
    def project(self) -> ProjectConfig:
        """The project's configuration, the last good one while its file is broken."""
        return self._snapshot.project

    @property
    def project_error(self) -> DefinitionError | None:
        """What is wrong with the project's `metadata.yaml` now."""
        return self._snapshot.project_error

    def entries(self) -> tuple[CatalogueEntry, ...]:
        """Every pipeline folder, sorted by uuid."""
        return tuple(self._snapshot.entries.values())

    def triggers(self) -> tuple[TriggerEntry, ...]:
        """Every named trigger of every `triggers.yaml` that exists in this environment, quarantined ones too."""
        return self._snapshot.triggers

    def trigger_errors(self) -> tuple[DefinitionError, ...]:
        """Unreadable trigger files, and entries whose name is missing or taken."""
        return tuple(error for entry in self.entries() for error in entry.trigger_errors)

    def unread_triggers(self) -> frozenset[str]:
        """Pipelines whose `triggers.yaml` exists but cannot be understood: nobody knows what it meant to say.

        Those of its triggers that were read before are in :meth:`triggers`, quarantined; after a restart there
        are none, and whoever holds them elsewhere must not take them for deleted.
        """
        return self._snapshot.unread_triggers

    def entry(self, uuid: str) -> CatalogueEntry:
        """The pipeline folder of that name, usable or not. Raises PipelineNotFound with the nearest name."""
        entries = self._snapshot.entries
        if (entry := entries.get(uuid)) is None:
            near = did_you_mean(uuid[:255], entries)
            hint = (
                near.strip(" ()").capitalize()
                or "See the folders under pipelines/ that hold a metadata.yaml."
            )
            raise PipelineNotFound(f"there is no pipeline '{uuid[:255]}'", hint=hint)
        return entry

    def get(self, uuid: str) -> Pipeline:
        """The pipeline of that name. Raises PipelineNotFound, or PipelineInvalid with file and line."""
        entry = self.entry(uuid)
        if entry.pipeline is None:
            raise PipelineInvalid(
                str(entry.error), hint="Mend the file; changes are seen within a second or so."
            )
        return entry.pipeline

    def refresh(self) -> bool:
        """Look at the disk; True when anything differs from the last look (always at the first)."""
        with self._lock:
            around, before = self._around, self._folders
            changed_project = self._look_at_project()
            anew = before is None or around != self._around
            known, on_disk = before or {}, self._names()
            names = sorted({*on_disk, *known})
            folders = {name: known.get(name) or Folder(self.root, name) for name in names}
            changed = [folder.look(self._around, anew=anew) for folder in folders.values()]
            # A folder that has gone stays until its files are believed to have gone.
            self._folders = {name: f for name, f in folders.items() if f.entry is not None or name in on_disk}
            if before is not None and not changed_project and not any(changed):
                return False
            self._snapshot = self._take(folders.values())
            return True

    def _look_at_project(self) -> bool:
        """Read the project's file if it changed; True when it did."""
        first = self._folders is None
        if not self._project_file.look() and not first:
            return False
        error = self._project_file.error
        if error is None:
            try:
                text = self._project_file.text or ""
                self._good_project = parse_project(self.root, text, self._around.environ)
            except BadDefinition as bad:
                error = bad.error
        self._project_error = error
        # A project that was good stays in force while its file is being mended.
        unusable = error if self._good_project is None else None
        project = self._good_project or self._around.project
        self._around = replace(self._around, project=project, project_error=unusable)
        return True

    def _names(self) -> set[str]:
        """The folders under `pipelines/`; hidden ones and Python's caches are none of ours."""
        try:
            with os.scandir(self.root / FOLDER) as found:
                return {e.name for e in found if not e.name.startswith((".", "__")) and e.is_dir()}
        except (FileNotFoundError, NotADirectoryError):
            return set()
        except OSError:
            # No descriptors left, a network disk away: the pipelines are still the ones they were.
            return set(self._folders or ())

    def _take(self, folders: Iterable[Folder]) -> _Snapshot:
        present = [(folder, folder.entry) for folder in folders if folder.entry is not None]
        return _Snapshot(
            project=self._around.project,
            project_error=self._project_error,
            entries={
                entry.uuid: replace(entry, trigger_errors=folder.trigger_errors) for folder, entry in present
            },
            triggers=tuple(trigger for folder, _entry in present for trigger in folder.triggers),
            unread_triggers=frozenset(folder.uuid for folder, _entry in present if folder.triggers_unread),
        )
