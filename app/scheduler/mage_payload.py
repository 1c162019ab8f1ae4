"""What callers written for Mage send to an API trigger, as values: lenient where Mage is, typed where we are."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NoReturn

from app.errors import FieldError, InvalidInput
from app.scheduler import variables

_KEYS = frozenset({"variables", "execution_date"})
#: As everywhere in the API: outside these years a zone's offset may leave what `datetime` can hold.
_YEARS = range(1900, 9000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What such a caller wants of the run."""

    variables: Mapping[str, Any] = field(default_factory=dict)
    execution_date: datetime | None = None
    event_variables: Mapping[str, Any] = field(default_factory=dict)


def read(payload: object) -> Asked:
    """`{"pipeline_run": {"variables": …, "execution_date": …}, …}`, all of it optional.

    Every other top-level key is an event variable (Mage). Raises InvalidInput naming the field.

    >>> read({"pipeline_run": {"execution_date": "2024-01-01T00:00:00"}, "who": "me"}).event_variables
    {'who': 'me'}
    """
    body = _mapping(payload, "")
    run = _mapping(body.get("pipeline_run"), "/pipeline_run")
    if unknown := sorted(run.keys() - _KEYS):
        _refuse(f"/pipeline_run/{unknown[0]}", "unknown field")
    event = {key: value for key, value in body.items() if key != "pipeline_run"}
    return Asked(
        variables=variables.check(
            _mapping(run.get("variables"), "/pipeline_run/variables"), "/pipeline_run/variables"
        ),
        execution_date=_time(run.get("execution_date")),
        event_variables=variables.check(event, ""),
    )


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        _refuse(where, "must be a JSON object")
    return value


def _time(value: object) -> datetime | None:
    """An ISO 8601 date or time; a naive one is UTC, as in Mage.

    >>> _time("2024-01-01 06:30").isoformat()
    '2024-01-01T06:30:00+00:00'
    """
    where = "/pipeline_run/execution_date"
    if value is None:
        return None
    try:
        time = datetime.fromisoformat(value if isinstance(value, str) else "")
    except ValueError:
        _refuse(where, "must be an ISO 8601 time, such as 2026-01-31T08:00:00")
    if time.year not in _YEARS:
        _refuse(where, f"the year must lie between {_YEARS.start} and {_YEARS.stop - 1}")
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)


def _refuse(where: str, message: str) -> NoReturn:
    raise InvalidInput(f"{where or 'body'}: {message}", errors=[FieldError(where, message)])
