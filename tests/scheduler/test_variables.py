"""What blocks find in their kwargs."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidInput
from app.models.pipeline import Pipeline
from app.models.rows import RunRow
from app.models.states import Cause, RunStatus
from app.scheduler import variables

DATE = datetime(2026, 11, 25, 23, 30, tzinfo=UTC)


def run(**values: Any) -> RunRow:
    given = {
        "id": 7,
        "pipeline_uuid": "p",
        "pipeline_hash": "h",
        "cause": Cause.TICK,
        "execution_date": DATE,
        "status": RunStatus.RUNNING,
        "created_at": DATE,
    }
    return RunRow(**{**given, **values})


def seen(pipeline: Pipeline | None = None, **values: Any) -> dict[str, Any]:
    return variables.for_blocks(pipeline or Pipeline("p", ()), run(**values), env="prod")[0]


def test_later_sources_win_and_events_only_fill() -> None:
    found = seen(
        Pipeline("p", (), variables={"a": "pipeline", "b": "pipeline"}),
        variables={"b": "run"},
        event_variables={"b": "event", "c": "event"},
    )
    assert (found["a"], found["b"], found["c"]) == ("pipeline", "run", "event")
    assert found["event"] == {"b": "event", "c": "event"}


def test_built_ins_cannot_be_overwritten() -> None:
    found = seen(variables={"ds": "mine", "pipeline_run_id": 0, "execution_date": "mine"})
    assert (found["ds"], found["pipeline_run_id"]) == ("2026-11-25", 7)


def test_dates_are_local_to_the_triggers_zone() -> None:
    trigger = {"name": "t", "interval": "@daily", "timezone": "Europe/Berlin"}
    found, names = variables.for_blocks(Pipeline("p", ()), run(options={"trigger": trigger}), env="prod")
    assert (found["execution_date"], found["ds"], found["hr"]) == (
        "2026-11-26T00:30:00+01:00",
        "2026-11-26",
        "00",
    )
    assert found["interval_end_datetime"] == "2026-11-27T00:00:00+01:00"
    assert found["trigger_name"] == "t"
    assert set(names) >= {"execution_date", "interval_start_datetime", "interval_end_datetime"}


def test_runs_without_a_time_trigger_have_no_interval() -> None:
    assert "interval_seconds" not in seen()


def interval(when: str, **trigger: Any) -> list[str | int | None]:
    """The four interval variables of a run at `when`."""
    frozen = {"name": "t", "timezone": "UTC", **trigger}
    found = seen(execution_date=datetime.fromisoformat(when), options={"trigger": frozen})
    names = ("start_datetime", "end_datetime", "seconds", "start_datetime_previous")
    return [found[f"interval_{name}"] for name in names]


@pytest.mark.parametrize(
    ("when", "trigger", "expected"),
    [
        (  # Friday's slot reaches over the weekend; the one before was Thursday's
            "2026-11-20T09:00+00:00",
            {"interval": "0 9 * * 1-5"},
            ["2026-11-20T09:00:00+00:00", "2026-11-23T09:00:00+00:00", 259200, "2026-11-19T09:00:00+00:00"],
        ),
        (  # a day of 25 hours
            "2026-10-24T22:00+00:00",
            {"interval": "@daily", "timezone": "Europe/Berlin"},
            ["2026-10-25T00:00:00+02:00", "2026-10-26T00:00:00+01:00", 90000, "2026-10-24T00:00:00+02:00"],
        ),
        (  # a week of Mondays, as the project says
            "2026-11-23T00:00+00:00",
            {"interval": "@weekly", "week_start": "monday"},
            ["2026-11-23T00:00:00+00:00", "2026-11-30T00:00:00+00:00", 604800, "2026-11-16T00:00:00+00:00"],
        ),
        (  # counted from when it was enabled
            "2026-11-25T12:07:30+00:00",
            {"interval": "@every 90s", "enabled_at": "2026-11-25T12:00:00+00:00"},
            ["2026-11-25T12:07:30+00:00", "2026-11-25T12:09:00+00:00", 90, "2026-11-25T12:06:00+00:00"],
        ),
        (  # landing at six, on the last day of shorter months
            "2026-02-28T06:00+00:00",
            {
                "interval": "@monthly",
                "start_time": "2026-01-31T06:00:00+00:00",
                "settings": {"landing_time_enabled": True},
            },
            ["2026-02-28T06:00:00+00:00", "2026-03-31T06:00:00+00:00", 2678400, "2026-01-31T06:00:00+00:00"],
        ),
        ("2026-11-25T12:00+00:00", {"interval": "@once"}, ["2026-11-25T12:00:00+00:00", None, None, None]),
    ],
    ids=["irregular", "clock change", "week", "every", "landing", "once"],
)
def test_the_interval_of_a_run_is_between_its_real_neighbours(
    when: str, trigger: dict[str, Any], expected: list[Any]
) -> None:
    assert interval(when, **trigger) == expected


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters()), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(st.characters()), json_values, max_size=3))
def test_variables_are_stored_as_they_are_or_refused(value: dict[str, Any]) -> None:
    from app.store.db import dumps, loads

    try:
        accepted = variables.check(value)
    except InvalidInput as error:
        assert error.errors
        return
    assert loads(dumps(accepted)) == value


@pytest.mark.parametrize("deep", [33, 500])
def test_nesting_has_a_limit(deep: int) -> None:
    value: Any = 1
    for _ in range(deep):
        value = [value]
    with pytest.raises(InvalidInput, match="nested"):
        variables.check({"x": value})
