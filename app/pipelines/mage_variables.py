"""Global variables that Mage keeps outside the pipeline's `metadata.yaml`: found, and written there when asked.

Mage: a pipeline without `variables:` in its file reads them from `<variables dir>/pipelines/<uuid>/.variables/global`,
one folder each with a `data.json` (older: one `<name>.json` each).
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from app.errors import PipelineInvalid
from app.pipelines import yamlfile
from app.pipelines.files import read_text
from app.pipelines.problems import BadDefinition

FILE = "metadata.yaml"
_EMPTY = re.compile(r"^variables:[ \t]*(?:null|~)?[ \t]*(?:#.*)?$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class StoredVariable:
    """A variable of a pipeline; `fault` says why its value cannot be read."""

    pipeline_uuid: str
    name: str
    value: Any = None
    fault: str | None = None


def stored_variables(root: Path, pipelines: Sequence[str], folders: Sequence[Path]) -> list[StoredVariable]:
    """What the pipelines of a project have only in a variables folder of Mage; the first folder that knows one wins."""
    found: dict[tuple[str, str], StoredVariable] = {}
    for uuid in pipelines:
        if _has_own(root, uuid):
            continue
        for folder in folders:
            for variable in _variables(folder / "pipelines" / uuid / ".variables" / "global", uuid):
                found.setdefault((uuid, variable.name), variable)
    return [found[key] for key in sorted(found)]


def variables_folders(root: Path) -> list[Path]:
    """Where Mage may have kept variables: the project's `variables_dir`, the user's data folder, the project."""
    found = [root]
    with suppress(RuntimeError):  # a user without a home
        found.insert(0, Path.home() / ".mage_data" / root.name)
    try:
        configured = yamlfile.parse(read_text(root, FILE)[0], FILE).get("variables_dir")
    except (OSError, BadDefinition):
        configured = None
    if isinstance(configured, str) and configured and "://" not in configured and "{{" not in configured:
        folder = root / Path(configured).expanduser()
        found[:0] = [folder / root.name, folder]
    return found


def write_variables(root: Path, variables: Sequence[StoredVariable]) -> Path:
    """Put variables of one pipeline into its `metadata.yaml`, the rest of which stays as it is. Returns the file.

    Raises PipelineInvalid when the file would not say what it should.
    """
    uuid = variables[0].pipeline_uuid
    name = f"pipelines/{uuid}/{FILE}"
    values = {variable.name: variable.value for variable in variables}
    section = yaml.safe_dump({"variables": values}, allow_unicode=True, sort_keys=False)
    old = read_text(root, name)[0]
    new, count = _EMPTY.subn(lambda _: section.rstrip("\n"), old, count=1)
    if not count:
        new = f"{old.rstrip()}\n{section}"
    if yamlfile.plain(yamlfile.parse(new, name).get("variables")) != values:
        raise PipelineInvalid(f"{name}: variables cannot be added to it", hint="write them there by hand")
    target = root / name
    part = target.with_name(f".{target.name}.{os.getpid()}")
    part.write_text(new, encoding="utf-8")
    part.chmod(target.stat().st_mode)
    part.replace(target)
    return target


def _has_own(root: Path, uuid: str) -> bool:
    """Whether the file has variables, or cannot be read so that nobody knows."""
    name = f"pipelines/{uuid}/{FILE}"
    try:
        return yamlfile.parse(read_text(root, name)[0], name).get("variables") is not None
    except (OSError, BadDefinition):
        return True


def _variables(folder: Path, uuid: str) -> Iterator[StoredVariable]:
    if not folder.is_dir():
        return
    for entry in sorted(folder.iterdir()):
        name, file = (entry.name, entry / "data.json") if entry.is_dir() else (entry.stem, entry)
        if name.startswith(".") or file.suffix != ".json":
            continue
        try:
            yield StoredVariable(uuid, name, json.loads(file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            yield StoredVariable(uuid, name, fault="its value is no JSON: write it into the file by hand")
        except (OSError, ValueError) as error:
            yield StoredVariable(uuid, name, fault=f"its value cannot be read: {error}")
