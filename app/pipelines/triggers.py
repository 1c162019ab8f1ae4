"""A pipeline's `triggers.yaml`, read-only. Each entry stands alone: a bad one is quarantined, the others live.

Mage: `triggers.yaml`. An entry with `envs` exists only where the service's `ENV` is among them. What Mage
writes back into the file, `last_enabled_at`, is left alone and not read; a `token` is kept as its hash. The
same rules judge a trigger that a caller describes, see :func:`check_trigger`.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, time
from typing import Any

import yaml

from app.errors import FieldError, InvalidInput
from app.models.states import ScheduleStatus, ScheduleType
from app.pipelines import yamlfile
from app.pipelines.fields import Section
from app.pipelines.problems import BadDefinition, DefinitionError, did_you_mean
from app.pipelines.project import LIMIT_REACHED, ProjectConfig, zone_name

#: Raises InvalidInput when an interval cannot be scheduled in a time zone.
CheckInterval = Callable[[str, str], object]
MAX_NAME = 255
#: A token that is shorter can be guessed; Mage's have 32.
MIN_TOKEN = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerEntry:
    """A trigger as its file describes it. With an `error` it is quarantined: it exists and must not fire.

    `digest` changes exactly when the trigger means something else; `timezone` is its own or the project's.
    """

    pipeline_uuid: str
    name: str
    schedule_type: ScheduleType = ScheduleType.TIME
    schedule_interval: str | None = None
    timezone: str | None = None
    status: ScheduleStatus = ScheduleStatus.INACTIVE
    start_time: datetime | None = None
    description: str | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    sla: int | None = None
    tags: tuple[str, ...] = ()
    #: SHA-256 of an API trigger's token, in hex; None when the file has none
    token_hash: str | None = None
    error: str | None = None
    digest: str = ""
    file: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True)
class TriggerRules:
    """What an entry is read against: the project's defaults, the name of the environment, the interval's judge."""

    project: ProjectConfig
    env: str = "prod"
    check_interval: CheckInterval | None = None


def read_triggers(
    pipeline_uuid: str, text: str, file: str, rules: TriggerRules
) -> tuple[list[TriggerEntry], list[DefinitionError]]:
    """The triggers of one file, and what is wrong with entries that have no name of their own.

    Raises BadDefinition when the file is not YAML or holds no list of triggers.
    """
    errors: list[DefinitionError] = []
    entries = Section(yamlfile.parse(text, file, tolerant=True), file).sections("triggers", errors)
    named: dict[str, Section] = {}
    for entry in entries:
        try:
            if _is_meant(entry, rules.env):
                name = _name(entry)
                if name in named:
                    raise entry.bad(
                        "name", f"the trigger name '{name}' is already on line {named[name].line}"
                    )
                named[name] = entry
        except BadDefinition as bad:
            errors.append(entry.values.fault or bad.error)
    return [_entry(pipeline_uuid, name, entry, rules) for name, entry in named.items()], errors


def _is_meant(entry: Section, env: str) -> bool:
    names = [name for name, _line in entry.texts("envs")]
    return not names or env in names


def _name(entry: Section) -> str:
    name = entry.text("name").strip()
    if not any(character.isalnum() for character in name):
        raise entry.bad("name", "a trigger needs a name with a letter or digit in it")
    if len(name) > MAX_NAME:
        raise entry.bad("name", f"a trigger's name has at most {MAX_NAME} characters")
    return name


def _entry(pipeline_uuid: str, name: str, entry: Section, rules: TriggerRules) -> TriggerEntry:
    """The entry with every field that can be read; the first that cannot is its error."""
    found, faults = _read(entry, rules)
    first = entry.values.fault or (faults[0].error if faults else None)
    error = str(first) if first else None
    trigger = TriggerEntry(
        pipeline_uuid=pipeline_uuid, name=name, error=error, file=entry.file, line=entry.line, **found
    )
    content = asdict(trigger)
    del content["file"], content["line"], content["digest"]
    if error:
        content["text"] = yamlfile.plain(entry.values)
    digest = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
    return replace(trigger, digest=digest)


def _read(entry: Section, rules: TriggerRules) -> tuple[dict[str, Any], list[BadDefinition]]:
    """Every field that can be read, and the faults of those that cannot."""
    found: dict[str, Any] = {}
    faults: list[BadDefinition] = []
    for key, read in _READERS.items():
        try:
            found[key] = read(entry, rules)
        except BadDefinition as bad:
            faults.append(bad)
    return found, faults


def check_trigger(pipeline_uuid: str, values: Mapping[str, Any], rules: TriggerRules) -> TriggerEntry:
    """The trigger that a caller describes with the keys of an entry. Raises InvalidInput naming every fault."""
    entry = Section(yamlfile.of_plain(dict(values)), "")
    found, faults = _read(entry, rules)
    try:
        found["name"] = _name(entry)
        if found.get("schedule_type") is ScheduleType.API:
            _refuse_timing(entry)
    except BadDefinition as bad:
        faults.append(bad)
    if faults:
        # One for each field: a zone that is wrong also makes the interval unreadable.
        named = {bad.pointer: FieldError(bad.pointer, bad.error.message) for bad in reversed(faults)}
        errors = list(reversed(named.values()))
        raise InvalidInput(f"{errors[0].pointer}: {errors[0].message}", errors=errors)
    return TriggerEntry(pipeline_uuid=pipeline_uuid, **found)


def _refuse_timing(entry: Section) -> None:
    """What an API trigger in a file may carry along, a caller who sends it believes to have an effect."""
    for key in ("schedule_interval", "start_time"):
        if entry.values.get(key) is not None:
            raise entry.bad(key, f"only a trigger of type time has a {key}")


def _interval(entry: Section, rules: TriggerRules) -> str | None:
    interval = entry.text("schedule_interval").strip()
    if entry.text("schedule_type") != ScheduleType.TIME:
        return interval or None
    if not interval:
        raise entry.bad("schedule_interval", "a trigger of type time needs a schedule_interval")
    if rules.check_interval is not None:
        try:
            rules.check_interval(interval, zone_name(entry) or rules.project.timezone)
        except InvalidInput as error:
            hint = f" {error.hint}" if error.hint else ""
            raise entry.bad("schedule_interval", f"{error.detail}.{hint}".rstrip()) from error
    return interval


def _zone(entry: Section, rules: TriggerRules) -> str | None:
    default = rules.project.timezone
    return zone_name(entry) or (None if default == "UTC" else default)


def _start_time(entry: Section, _rules: TriggerRules) -> datetime | None:
    """A date or a time as YAML or ISO 8601 writes it; without an offset it is UTC (Mage)."""
    text = entry.text("start_time").strip()
    if not text:
        return None
    try:
        if yaml.constructor.SafeConstructor.timestamp_regexp.match(text):
            node = yaml.ScalarNode("tag:yaml.org,2002:timestamp", text)
            value = yaml.constructor.SafeConstructor().construct_yaml_timestamp(node)
        else:
            value = datetime.fromisoformat(text)
        if not isinstance(value, datetime):
            value = datetime.combine(value, time())
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise entry.bad("start_time", f"start_time '{text}' is not a date or a time") from None


def _sla(entry: Section, _rules: TriggerRules) -> int | None:
    return entry.integer("sla") or None


def _settings(entry: Section, _rules: TriggerRules) -> dict[str, Any]:
    section = entry.section("settings")
    written_by_mage = {"invalid_schedule_interval"} if entry.file else set()
    for key in section.values.keys() - _SETTINGS.keys() - written_by_mage:
        raise section.bad(key, f"unknown setting '{key}'{did_you_mean(key, _SETTINGS)}")
    return {
        key: read(section, key)
        for key, read in _SETTINGS.items()
        if section.values.get(key) not in (None, "")
    }


def _token_hash(entry: Section, _rules: TriggerRules) -> str | None:
    """The hash only: nobody above the file ever holds the token."""
    token = entry.text("token").strip()
    if not token or entry.text("schedule_type") != ScheduleType.API:
        return None
    if len(token) < MIN_TOKEN:
        raise entry.bad("token", f"a token has at least {MIN_TOKEN} characters")
    return hashlib.sha256(token.encode()).hexdigest()


def _not_yet(section: Section, key: str) -> bool:
    if section.flag(key):
        raise section.bad(key, f"the setting '{key}' is not supported yet")
    return False


def _limit_reached(section: Section, key: str) -> str:
    if section.text(key) == "replace":
        raise section.bad(key, f"the setting '{key}: replace' is not supported yet, only cancel and wait")
    return LIMIT_REACHED[section.choice(key, tuple(LIMIT_REACHED))]


def _timeout_status(section: Section, key: str) -> str:
    return section.choice(key, ("failed", "cancelled"))


_SETTINGS: dict[str, Callable[[Section, str], Any]] = {
    "skip_if_previous_running": Section.flag,
    "allow_blocks_to_fail": Section.flag,
    "create_initial_pipeline_run": _not_yet,
    "landing_time_enabled": _not_yet,
    "pipeline_run_limit": Section.integer,
    "on_pipeline_run_limit_reached": _limit_reached,
    "timeout": Section.number,
    "timeout_status": _timeout_status,
}
_READERS: dict[str, Callable[[Section, TriggerRules], Any]] = {
    "schedule_type": lambda entry, _: ScheduleType(entry.choice("schedule_type", list(ScheduleType))),
    "timezone": _zone,
    "schedule_interval": _interval,
    "status": lambda entry, _: ScheduleStatus(entry.choice("status", list(ScheduleStatus), "inactive")),
    "start_time": _start_time,
    "description": lambda entry, _: entry.text("description") or None,
    "variables": lambda entry, _: entry.mapping("variables"),
    "settings": _settings,
    "sla": _sla,
    "tags": lambda entry, _: tuple(tag for tag, _line in entry.texts("tags")),
    "token_hash": _token_hash,
}
