"""One folder under `pipelines/`, as of the last look at it."""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from app.models.pipeline import Pipeline
from app.pipelines import yamlfile
from app.pipelines.blocks import UUID
from app.pipelines.definition import defaults_of, read_pipeline
from app.pipelines.fields import Section
from app.pipelines.keys import overridden
from app.pipelines.problems import BadDefinition, DefinitionError
from app.pipelines.project import ProjectConfig
from app.pipelines.triggers import CheckInterval, TriggerEntry, TriggerRules, read_triggers
from app.pipelines.watch import WatchedFile


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One pipeline folder: either a `pipeline` or the `error` that makes it unusable."""

    uuid: str
    name: str
    type: str = "python"
    description: str = ""
    tags: tuple[str, ...] = ()
    pipeline: Pipeline | None = None
    error: DefinitionError | None = None
    warnings: tuple[str, ...] = ()
    #: what of its `triggers.yaml` could not be read as a trigger
    trigger_errors: tuple[DefinitionError, ...] = ()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a folder is read against. With a `project_error` nothing in it is usable."""

    project: ProjectConfig
    project_error: DefinitionError | None = None
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    env: str = "prod"
    check_interval: CheckInterval | None = None


class Folder:
    """A pipeline folder. `entry` is None while it holds no `metadata.yaml`: then it is no pipeline."""

    def __init__(self, root: Path, name: str) -> None:
        self.uuid = name
        self.path = f"pipelines/{name}"
        self.entry: CatalogueEntry | None = None
        self.triggers: tuple[TriggerEntry, ...] = ()
        self.trigger_errors: tuple[DefinitionError, ...] = ()
        #: the trigger file exists and says nothing that can be understood
        self.triggers_unread = False
        self._root = root
        self._metadata = WatchedFile(root, f"{self.path}/metadata.yaml")
        self._trigger_file = WatchedFile(root, f"{self.path}/triggers.yaml")
        self._blocks: dict[str, object] = {}

    def look(self, around: Surroundings, *, anew: bool) -> bool:
        """Read again what changed on disk, or everything if `anew`; True when something did."""
        metadata, triggers = self._metadata.look(), self._trigger_file.look()
        moved = any(_kind(path) != kind for path, kind in self._blocks.items())
        if anew or metadata or moved:
            self._read_pipeline(around)
        if anew or metadata or triggers:
            self._read_triggers(around)
        return anew or metadata or moved or triggers

    def _read_pipeline(self, around: Surroundings) -> None:
        self._blocks = {}
        if self._metadata.text is None and self._metadata.error is None:
            self.entry = None
            return
        name = os.fsencode(self.uuid).decode(errors="backslashreplace")  # a folder's name may be any bytes
        error = around.project_error or self._metadata.error
        if not UUID.fullmatch(self.uuid):
            message = "a pipeline's folder name may hold letters, digits, '_' and '-'"
            error = DefinitionError(message, f"pipelines/{name}")
        self.entry = CatalogueEntry(uuid=name, name=name, error=error)
        if self.entry.error is None:
            try:
                self.entry = self._pipeline(around)
            except BadDefinition as bad:
                self.entry = replace(self.entry, error=bad.error)

    def _pipeline(self, around: Surroundings) -> CatalogueEntry:
        file = self._metadata.relative
        top = Section(yamlfile.parse(self._metadata.text or "", file), file)
        shown = CatalogueEntry(
            uuid=self.uuid,
            name=_shown(top, "name") or self.uuid,
            type=_shown(top, "type") or "python",
            description=_shown(top, "description"),
        )
        try:
            remarks: dict[str, None] = {}

            def warn(section: Section, line: int, message: str) -> None:
                remarks.setdefault(f"{section.file}:{line}: {message}")

            top = overridden(top, around.env, warn)
            defaults = defaults_of(top, around.project, around.environ)
            defaults.warnings.update(remarks)
            try:
                pipeline = read_pipeline(self.uuid, top, defaults)
            finally:
                paths = [os.path.join(self._root, name) for name in defaults.files]  # noqa: PTH118
                self._blocks = {path: _kind(path) for path in paths}
        except BadDefinition as bad:
            return replace(shown, error=bad.error)
        return replace(shown, tags=pipeline.tags, pipeline=pipeline, warnings=pipeline.warnings)

    def _read_triggers(self, around: Surroundings) -> None:
        before, text, error = self.triggers, self._trigger_file.text, self._trigger_file.error
        self.triggers, self.trigger_errors, self.triggers_unread = (), (), False
        if self.entry is None or not UUID.fullmatch(self.uuid):
            return
        if error is None and text is not None:
            try:
                rules = TriggerRules(around.project, around.env, around.check_interval)
                found, errors = read_triggers(self.uuid, text, self._trigger_file.relative, rules)
                if around.project_error is not None:
                    found = [replace(trigger, error=str(around.project_error)) for trigger in found]
                self.triggers, self.trigger_errors = tuple(found), tuple(errors)
            except BadDefinition as bad:
                error = bad.error
        if error is not None:
            # Not deleted, only unreadable: what was there is quarantined until the file is mended.
            self.triggers = tuple(replace(trigger, error=str(error)) for trigger in before)
            self.trigger_errors, self.triggers_unread = (error,), True


def _shown(top: Section, key: str) -> str:
    """A text for the list of pipelines, whatever else is wrong with the file."""
    try:
        return top.text(key)
    except BadDefinition:
        return ""


def _kind(path: str) -> object:
    """What lies at a block's path, for comparison only: nothing, a file, a link to somewhere that exists or not."""
    try:
        kind = stat.S_IFMT(os.lstat(path).st_mode)
        return (os.readlink(path), os.path.isfile(path)) if kind == stat.S_IFLNK else kind  # noqa: PTH113, PTH115
    except (OSError, ValueError):
        return None
