"""The settings of a trigger: one set of rules, one normal form."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidInput
from app.pipelines import trigger_settings
from app.pipelines.trigger_settings import READERS, check


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ({"catch_up": "all", "catch_up_limit": "7"}, {"catch_up": "all", "catch_up_limit": 7}),
        ({"catch_up_within": "6h"}, {"catch_up_within": 21600.0}),
        ({"catch_up_within": 90}, {"catch_up_within": 90.0}),
        ({"end_time": "2026-12-31"}, {"end_time": "2026-12-31T00:00:00+00:00"}),
        ({"end_time": "2026-12-31T12:00:00+02:00"}, {"end_time": "2026-12-31T10:00:00+00:00"}),
        ({"on_pipeline_run_limit_reached": "skip"}, {"on_pipeline_run_limit_reached": "cancel"}),
        ({"on_pipeline_run_limit_reached": "replace"}, {"on_pipeline_run_limit_reached": "replace"}),
        ({"timeout": None, "dst_gap": ""}, {}),
    ],
)
def test_settings_have_one_normal_form_that_passes_again(
    written: dict[str, Any], kept: dict[str, Any]
) -> None:
    assert check(written) == kept
    assert check(kept) == kept


def test_what_is_kept_is_read_back() -> None:
    kept = check({"end_time": "2026-12-31", "catch_up_within": "1d 12h"})
    assert trigger_settings.within(kept) == timedelta(hours=36)
    end = trigger_settings.ends(kept)
    assert end is not None and (end.year, end.utcoffset()) == (2026, timedelta(0))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*READERS]) | st.text(max_size=12), values, max_size=5))
def test_whatever_is_written_is_refused_by_name_or_kept(written: dict[str, Any]) -> None:
    try:
        kept = check(written)
    except InvalidInput as refused:
        assert refused.errors[0].pointer.startswith("/settings")
        return
    assert check(kept) == kept
