"""The `settings` of a trigger: one set of rules for files, for callers and for rows that somebody wrote by hand.

What comes out is normal: lengths of time are seconds, `end_time` is ISO 8601 in UTC, `skip` is `cancel`. Whether
blackouts and landing times fit the interval is for whoever knows timetables, see `TriggerRules.check_interval`.
"""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, time, timedelta
from functools import lru_cache
from typing import Any, Final

import yaml

from app.errors import FieldError, InvalidInput
from app.pipelines import yamlfile
from app.pipelines.fields import Section
from app.pipelines.problems import BadDefinition, did_you_mean
from app.pipelines.project import LIMIT_REACHED

MAX_CATCH_UP: Final = 10_000
MAX_JITTER_S: Final = 86_400
#: Mage writes it into a file beside an interval that is none.
_WRITTEN_BY_MAGE: Final = "invalid_schedule_interval"
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_LONGEST_S: Final = 366 * 86_400


def read(section: Section) -> dict[str, Any]:
    """The settings that are set, in their normal form. Raises BadDefinition for the first that is wrong."""
    written_by_mage = {_WRITTEN_BY_MAGE} if section.file else set()
    for key in section.values.keys() - READERS.keys() - written_by_mage:
        raise section.bad(key, f"unknown setting '{key}'{did_you_mean(key, READERS)}")
    found = {
        key: reader(section, key)
        for key, reader in READERS.items()
        if section.values.get(key) not in (None, "")
    }
    _refuse_contradictions(section, found)
    return found


def check(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same for settings that are in the database, where anybody may have written them. Raises InvalidInput."""
    return _checked(json.dumps(settings, sort_keys=True, default=str)) if settings else {}


@lru_cache(maxsize=4096)
def _checked(text: str) -> Mapping[str, Any]:
    entry = Section(yamlfile.of_plain({"settings": json.loads(text)}), "")
    try:
        return read(entry.section("settings"))
    except BadDefinition as bad:
        errors = [FieldError(bad.pointer, bad.error.message)]
        raise InvalidInput(f"{bad.pointer}: {bad.error.message}", errors=errors) from bad


def moment(section: Section, key: str) -> datetime | None:
    """A date or a time as YAML or ISO 8601 writes it; without an offset it is UTC (Mage)."""
    text = section.text(key).strip()
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
        raise section.bad(key, f"{key} '{text}' is not a date or a time") from None


def _end_time(section: Section, key: str) -> str | None:
    value = moment(section, key)
    return value.isoformat() if value else None


def length(text: str) -> float:
    """Seconds of a length of time: a number of them, or whole units. Raises ValueError.

    >>> length("90"), length("6h"), length("1d 12h")
    (90.0, 21600.0, 129600.0)
    """
    try:
        return float(text)
    except ValueError:
        parts = text.replace(" ", "")
    total, digits = 0.0, ""
    for character in parts:
        if character.isdecimal():
            digits += character
        else:
            total += int(digits) * _UNITS[character]  # no digits, or no unit: not a length of time
            digits = ""
    if digits or not parts:
        raise ValueError(text)
    return total


def _seconds(section: Section, key: str) -> float:
    text = section.text(key)
    try:
        seconds = length(text)
    except (ValueError, KeyError):
        seconds = -1.0
    if not 0 < seconds <= _LONGEST_S:
        raise section.bad(
            key, f"{section.where}{key} must be seconds or a length such as 90s, 6h or 2d, not '{text}'"
        )
    return seconds


def _jitter(section: Section, key: str) -> float:
    seconds = section.number(key) or 0.0
    if seconds > MAX_JITTER_S:
        raise section.bad(key, f"{section.where}{key} is at most {MAX_JITTER_S} s, which is a day")
    return seconds


def _catch_up_limit(section: Section, key: str) -> int:
    limit = section.integer(key) or 0
    if not 1 <= limit <= MAX_CATCH_UP:
        raise section.bad(key, f"{section.where}{key} must be from 1 to {MAX_CATCH_UP}")
    return limit


def _limit_reached(section: Section, key: str) -> str:
    if section.text(key) == "replace":
        return "replace"
    return LIMIT_REACHED[section.choice(key, (*LIMIT_REACHED, "replace"))]


def _one_of(*allowed: str) -> Callable[[Section, str], str]:
    return lambda section, key: section.choice(key, allowed)


def _as_written(section: Section, key: str) -> Any:
    return yamlfile.plain(section.values[key])


def _refuse_contradictions(section: Section, found: Mapping[str, Any]) -> None:
    """What would silently have no effect is a fault."""
    if found.get("jitter_s") and found.get("landing_time_enabled"):
        raise section.bad("jitter_s", "settings.jitter_s cannot go with landing_time_enabled: take one out")
    if found.get("catch_up_limit") is not None and found.get("catch_up") != "all":
        raise section.bad("catch_up_limit", "settings.catch_up_limit needs catch_up: all")
    if found.get("catch_up_within") is not None and found.get("catch_up") == "none":
        raise section.bad("catch_up_within", "settings.catch_up_within cannot go with catch_up: none")


READERS: Final[Mapping[str, Callable[[Section, str], Any]]] = {
    "skip_if_previous_running": Section.flag,
    "allow_blocks_to_fail": Section.flag,
    "create_initial_pipeline_run": Section.flag,
    "landing_time_enabled": Section.flag,
    "pipeline_run_limit": Section.integer,
    "on_pipeline_run_limit_reached": _limit_reached,
    "timeout": Section.number,
    "timeout_status": _one_of("failed", "cancelled"),
    "on_sla": _one_of("alert", "cancel", "fail"),
    "catch_up": _one_of("latest", "all", "none"),
    "catch_up_limit": _catch_up_limit,
    "catch_up_within": _seconds,
    "jitter_s": _jitter,
    "end_time": _end_time,
    "blackouts": _as_written,
    "dst_gap": _one_of("next", "skip"),
    "dst_overlap": _one_of("first", "both"),
}
#: Those that say when there are slots and when their runs start: with another value it is another trigger.
TIMING: Final = frozenset(
    {"landing_time_enabled", "jitter_s", "end_time", "blackouts", "dst_gap", "dst_overlap"}
)


def ends(settings: Mapping[str, Any]) -> datetime | None:
    """`end_time` of settings in their normal form."""
    text = settings.get("end_time")
    return datetime.fromisoformat(text) if text else None


def within(settings: Mapping[str, Any]) -> timedelta | None:
    """`catch_up_within` of settings in their normal form."""
    seconds = settings.get("catch_up_within")
    return timedelta(seconds=seconds) if seconds else None
