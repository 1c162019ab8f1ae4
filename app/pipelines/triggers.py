"""A pipeline's `triggers.yaml`, read-only. Each entry stands alone: a bad one is quarantined, the others live.

Mage: `triggers.yaml`. An entry with `envs` exists only where the service's `ENV` is among them. What Mage
writes back into the file, `last_enabled_at`, is left alone and not read; a `token` is kept as its hash. The
same rules judge a trigger that a caller describes, see :func:`check_trigger`.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from app.errors import FieldError, InvalidInput
from app.models.states import ScheduleStatus, ScheduleType
from app.pipelines import trigger_settings, yamlfile
from app.pipelines.fields import Section
from app.pipelines.problems import BadDefinition, DefinitionError
from app.pipelines.project import ProjectConfig, zone_name

#: (interval, zone, settings, start_time): raises InvalidInput when there can be no slots of that kind. An error of
#: a setting has its pointer.
CheckInterval = Callable[[str, str, Mapping[str, Any], datetime | None], object]
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
            rules.check_interval(interval, zone_name(entry) or rules.project.timezone, {}, None)
        except InvalidInput as error:
            hint = f" {error.hint}" if error.hint else ""
            raise entry.bad("schedule_interval", f"{error.detail}.{hint}".rstrip()) from error
    return interval


def _zone(entry: Section, rules: TriggerRules) -> str | None:
    default = rules.project.timezone
    return zone_name(entry) or (None if default == "UTC" else default)


def _start_time(entry: Section, _rules: TriggerRules) -> datetime | None:
    return trigger_settings.moment(entry, "start_time")


def _sla(entry: Section, _rules: TriggerRules) -> int | None:
    return entry.integer("sla") or None


def _settings(entry: Section, rules: TriggerRules) -> dict[str, Any]:
    section = entry.section("settings")
    found = trigger_settings.read(section)
    if found and entry.text("schedule_type") == ScheduleType.TIME and rules.check_interval is not None:
        try:
            interval, zone = _interval(entry, rules) or "", zone_name(entry) or rules.project.timezone
            rules.check_interval(interval, zone, found, _start_time(entry, rules))
        except InvalidInput as error:
            key = error.errors[0].pointer.split("/")[2] if error.errors else "landing_time_enabled"
            raise section.bad(key, f"settings.{key}: {error.detail}") from error
        except BadDefinition:
            pass  # the interval's own fault, or the zone's: told there
    return found


def _token_hash(entry: Section, _rules: TriggerRules) -> str | None:
    """The hash only: nobody above the file ever holds the token."""
    token = entry.text("token").strip()
    if not token or entry.text("schedule_type") != ScheduleType.API:
        return None
    if len(token) < MIN_TOKEN:
        raise entry.bad("token", f"a token has at least {MIN_TOKEN} characters")
    return hashlib.sha256(token.encode()).hexdigest()


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
