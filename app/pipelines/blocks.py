"""One entry of a pipeline's `blocks:` as a Block, or the reason why it cannot run here."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from app.models.pipeline import Block, BlockType, Dynamic, Hook, Isolation, RetryPolicy, TriggerRule
from app.pipelines import keys
from app.pipelines.dynamic import read_dynamic
from app.pipelines.fields import Section
from app.pipelines.files import is_file
from app.pipelines.problems import ABOUT, BadDefinition, did_you_mean
from app.pipelines.project import LOCAL_EXECUTORS, ProjectConfig, merge_retry
from app.pipelines.templating import render

UUID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}", re.ASCII)
MAX_UUID = 255

#: Blocks for the person who reads the pipeline; they never run (Mage: not executable).
NOTE_TYPES = ("chart", "scratchpad", "markdown")
#: Blocks that belong to others: they stand under `callbacks:` and `conditionals:`.
HOOK_TYPES = ("callback", "conditional")
#: Block types of Mage that do not run here.
OTHER_TYPES = (
    "dbt",
    "extension",
    "global_data_product",
    "group",
    "hook",
    "pipeline",
)


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a block takes from its pipeline and project; `warnings` and `files` collect while blocks are read."""

    project: ProjectConfig
    retry: RetryPolicy
    isolation: Isolation
    executor_type: str
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    warnings: dict[str, None] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    dynamic: Dynamic = field(default_factory=Dynamic)
    timeout_s: float | None = None

    def warn(self, section: Section, line: int, message: str) -> None:
        """Note something that does not stop the pipeline."""
        self.warnings.setdefault(f"{section.file}:{line}: {message}")


def read_block(section: Section, defaults: Defaults) -> Block | None:
    """The block of one entry; None for a note. Upstreams are as written, not checked.

    Raises BadDefinition.
    """
    uuid = _uuid(section)
    kind = section.text("type")
    if kind in NOTE_TYPES:
        return None
    _check_supported(section, uuid, kind)
    keys.warn_unknown(section, keys.BLOCK, defaults.warn)
    timeout_s = section.number("timeout")
    if timeout_s is None and kind != BlockType.SENSOR:  # a sensor's bounds its whole waiting, not a try
        timeout_s = defaults.timeout_s
    return Block(
        uuid=uuid,
        type=BlockType(kind),
        # A replica has the file of its original, which the pipeline's reader knows.
        file="" if section.text("replicated_block") else _file(section, uuid, kind, defaults),
        name=section.text("name") or uuid,
        upstream=tuple(dict.fromkeys(name for name, _line in section.texts("upstream_blocks"))),
        configuration=section.mapping("configuration"),
        retry=merge_retry(section.section("retry_config"), defaults.retry, defaults.warn),
        timeout_s=timeout_s or None,  # Mage: 0 is no timeout
        isolation=Isolation(section.choice("isolation", list(Isolation), defaults.isolation)),
        executor_type=executor(section, defaults),
        trigger_rule=TriggerRule(section.choice("trigger_rule", list(TriggerRule), TriggerRule.ALL_SUCCESS)),
        callbacks=_legacy_callback(section, uuid, defaults),
        dynamic=read_dynamic(section.section("configuration"), defaults.dynamic),
        replica_of=section.text("replicated_block") or None,
    )


def read_hook(section: Section, kind: str, defaults: Defaults) -> Hook:
    """A conditional or callback of the pipeline; which blocks it belongs to is for the caller to read."""
    uuid = _uuid(section)
    if (found := section.text("type") or kind) != kind:
        raise section.bad("type", f"block '{uuid}' under {kind}s has the type '{found}'; it must be {kind}")
    _check_language(section, uuid)
    return Hook(uuid, _file(section, uuid, kind, defaults))


def _legacy_callback(section: Section, uuid: str, defaults: Defaults) -> tuple[Hook, ...]:
    """Mage's older way: `has_callback: true` and a file `callbacks/<block>_callback.py`."""
    if not section.flag("has_callback"):
        return ()
    name = f"{uuid}_callback"
    path = f"callbacks/{name}.py"
    defaults.files.append(path)
    if not is_file(defaults.project.root, path):
        raise section.bad("has_callback", f"block '{uuid}' has a callback, but there is no file {path}")
    return (Hook(name, path),)


def executor(section: Section, defaults: Defaults) -> str:
    """The executor type of a block or pipeline. Remote ones are warned about, or refused by `strict_executors`.

    It may be a template (Mage: `executor_type`).
    """
    warn, line = defaults.warn, section.values.at("executor_type")
    name = render(
        section.text("executor_type"), section.file, defaults.environ, lambda m: warn(section, line, m)
    )
    if not name or name in LOCAL_EXECUTORS:
        return name or defaults.executor_type
    message = f"executor_type '{name}' is not available here"
    if defaults.project.strict_executors:
        raise section.bad("executor_type", f"{message}, and the project sets strict_executors")
    warn(section, line, f"{message}; it runs in a local worker")
    return name


def _uuid(section: Section) -> str:
    uuid = section.text("uuid")
    if not uuid:
        raise BadDefinition("the block has no uuid", section.file, section.line)
    if len(uuid) > MAX_UUID or not all(UUID.fullmatch(part) for part in uuid.split("/")):
        raise section.bad(
            "uuid", f"the block uuid '{uuid}' may hold letters, digits, '_', '-', and '/' between them"
        )
    return uuid


def _check_supported(section: Section, uuid: str, kind: str) -> None:
    """One clear sentence for whatever would not run as its author meant it."""
    if kind in OTHER_TYPES:
        raise section.bad("type", f"block '{uuid}': blocks of type {kind} are not supported{ABOUT}")
    if kind in HOOK_TYPES:
        raise section.bad("type", f"block '{uuid}': a {kind} stands under {kind}s:, not under blocks:")
    if kind not in list(BlockType):
        hint = did_you_mean(kind, [*BlockType, *OTHER_TYPES])
        what = f"has the unknown type '{kind}'{hint}" if kind else "has no type"
        raise section.bad("type", f"block '{uuid}' {what}")
    _check_language(section, uuid)
    if section.text("extension_uuid"):
        raise section.bad("extension_uuid", f"block '{uuid}': extension blocks are not supported{ABOUT}")


def _check_language(section: Section, uuid: str) -> None:
    language = section.text("language") or "python"
    if language != "python":
        raise section.bad("language", f"block '{uuid}': blocks in {language} are not supported{ABOUT}")


def _file(section: Section, uuid: str, kind: str, defaults: Defaults) -> str:
    """The block's file, relative to the project (Mage: `file_source.path`, `file_path`, else folder and uuid)."""
    configuration = section.section("configuration")
    source, key, asked = configuration.section("file_source"), "path", ""
    if not (asked := source.text("path")):
        source, key, asked = configuration, "file_path", configuration.text("file_path")
    folder = kind if kind == BlockType.CUSTOM else f"{kind}s"
    path = asked or f"{folder}/{uuid}.py"
    place = source.values.at(key) if asked else section.values.at("uuid")
    root = defaults.project.root
    # Mage writes some paths from the folder above the project.
    shorter = path.removeprefix(f"{root.resolve().name}/")
    defaults.files.extend(dict.fromkeys((path, shorter)))
    try:
        found = next((name for name in dict.fromkeys((path, shorter)) if is_file(root, name)), None)
    except BadDefinition as bad:
        raise BadDefinition(f"block '{uuid}': {bad.error.message}", section.file, place) from bad
    if found is None:
        raise BadDefinition(f"block '{uuid}': there is no file {path}", section.file, place)
    if not found.endswith(".py"):
        raise BadDefinition(f"block '{uuid}': {path} is not a Python file", section.file, place)
    return found.removeprefix("./")
