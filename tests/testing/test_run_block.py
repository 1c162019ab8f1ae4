"""`run_block` and `due`."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from app.errors import InvalidInput, UnknownBlock
from app.testing import due, run_block

DAY = datetime(2026, 3, 28, tzinfo=UTC)
FILES = {
    "metadata.yaml": "name: here\n",
    "data_loaders/load.py": """
@data_loader
def load(*args, **kwargs):
    return [[1, 2], [{"block_uuid": "one"}, {}]]
""",
    "transformers/join.py": """
@transformer
def join(left, right, *args, **kwargs):
    names = {"df_1": df_1, "other": other}
    return [left, right, sorted(names), kwargs["ds"], kwargs["retry"]["attempts"], kwargs.get("x")]

@test
def test_output(left, *args):
    assert left is not None, "nothing on the left"
""",
    "custom/other.py": "@custom\ndef other(*args, **kwargs):\n    return kwargs['dynamic_block_index']\n",
    "sensors/wait.py": "@sensor\ndef wait(*args, **kwargs):\n    return kwargs['ready']\n",
    "pipelines/p/metadata.yaml": """
blocks:
- {uuid: load, type: data_loader, configuration: {dynamic: {parent: [other]}}}
- {uuid: other, type: custom, upstream_blocks: [load]}
- {uuid: join, type: transformer, upstream_blocks: [load, other]}
- {uuid: wait, type: sensor}
""",
    "pipelines/q/metadata.yaml": "blocks:\n- {uuid: wait, type: sensor, timeout: 5}\n",
    "pipelines/p/triggers.yaml": """
triggers:
- {name: night, schedule_type: time, schedule_interval: 30 2 * * *, timezone: Europe/Berlin}
- {name: later, schedule_type: time, schedule_interval: '@daily', start_time: 2026-03-30}
- {name: asked, schedule_type: api}
- {name: bad, schedule_type: time, schedule_interval: now and then}
""",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("here")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_inputs_go_by_name_or_in_order(project: Path) -> None:
    wanted = [1, 2, ["df_1", "other"], "2026-03-28", 1, "y"]
    by_name = run_block(project, "join", inputs={"other": 2, "load": 1}, variables={"x": "y"}, at=DAY)
    assert by_name.check().output == wanted == list(by_name.outputs)
    assert run_block(project, "join", inputs=[1, 2], variables={"x": "y"}, at=DAY).output == wanted
    assert run_block(project, "join", inputs=[1, 2], attempt=3).output[4] == 3


def test_a_frame_goes_in_and_comes_out_as_it_was(project: Path) -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", None]})
    found = run_block(project, "join", inputs=[frame, frame]).check()
    pd.testing.assert_frame_equal(found.outputs[0], frame)


def test_the_tests_of_a_block_count(project: Path) -> None:
    found = run_block(project, "join", inputs=[None, 2])
    assert found.status == "failed"
    assert found.error is not None and "nothing on the left" in found.error.message
    with pytest.raises(AssertionError, match="block 'join' is failed"):
        found.check()


def test_a_dynamic_block_leaves_its_items_and_a_child_gets_one(project: Path) -> None:
    assert run_block(project, "load").check().output == [1, 2]
    assert run_block(project, "other", inputs=[2], item=7).check().output == 7


@pytest.mark.parametrize("inputs", [{}, {"load": 1}, {"load": 1, "other": 2, "third": 3}, [1], [1, 2, 3]])
def test_inputs_that_are_not_the_upstream_blocks_are_refused(project: Path, inputs: Any) -> None:
    with pytest.raises(InvalidInput, match="has the upstream blocks load, other"):
        run_block(project, "join", inputs=inputs)


def test_a_sensor_is_poked_once(project: Path) -> None:
    for ready in (True, False):
        assert run_block(project, "wait", pipeline="p", variables={"ready": ready}).met is ready


def test_a_block_of_several_pipelines_has_to_be_named_with_one(project: Path) -> None:
    with pytest.raises(InvalidInput, match="several pipelines have a block 'wait'"):
        run_block(project, "wait")
    with pytest.raises(UnknownBlock, match="no pipeline"):
        run_block(project, "nobody")
    with pytest.raises(UnknownBlock, match="'q' has no block 'join'"):
        run_block(project, "join", pipeline="q")


def test_dates_come_in_the_triggers_own_zone(project: Path) -> None:
    dates = due(project, "p", "night", between=(DAY, DAY + timedelta(days=3)))
    # On the 29th the clock goes from 2 to 3: the slot that is skipped comes right after the gap.
    assert [f"{date:%d %H:%M %z}" for date in dates] == ["28 02:30 +0100", "29 03:00 +0200", "30 02:30 +0200"]


def test_the_first_bound_is_included_and_the_last_is_not(project: Path) -> None:
    start = datetime(2026, 3, 30, tzinfo=UTC)
    assert due(project, "p", "later", between=(DAY, start)) == []
    assert due(project, "p", "later", between=(DAY, start + timedelta(days=1))) == [start]


@pytest.mark.parametrize(
    ("name", "why"), [("asked", "no time trigger"), ("bad", "now and then"), ("none", "it has|no trigger")]
)
def test_a_trigger_without_dates_says_so(project: Path, name: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        due(project, "p", name, between=(DAY, DAY + timedelta(days=1)))
