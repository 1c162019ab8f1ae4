"""Any graph of dynamic, reduced and plain blocks, against a model that computes its values by plain recursion.

The model knows nothing of families, templates or order: only what an input is. Sizes follow from the values, so
ragged fan-outs, empty ones and products of several are all met.
"""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.models.pipeline import TriggerRule
from app.models.states import BLOCK_TERMINAL
from app.testing import RunReport, run_pipeline

Spec = dict[str, Any]
CODE = """
@custom
def run(*args, **kwargs):
    own = kwargs["configuration"]
    if own["flaky"] and kwargs["retry"]["attempts"] == 1:
        raise ConnectionError("the first time fails")
    value = kwargs["block_uuid"] + "(" + ",".join(map(told, args)) + ")"
    if own["fails"] and len(value) % own["fails"] == 0:
        raise ValueError(value)
    if own["items"] is None:
        return value
    return [[value + str(n) for n in range(len(value) % (own["items"] + 1))]]


def told(value):
    return "[" + ",".join(map(told, value)) + "]" if isinstance(value, list) else str(value)
"""

SENSOR = """
from utils.seen import seen

@sensor
def poke(*args, **kwargs):
    own, key = kwargs["configuration"], (kwargs["block_uuid"], kwargs.get("dynamic_block_index"))
    seen[key] = seen.get(key, 0) + 1
    if own["fails"] and seen[key] == own["fails"]:
        raise ValueError(key)
    return seen[key] >= 3
"""
CONDITION = """
@condition
def may(*args, **kwargs):
    return (kwargs.get("dynamic_block_index") or 0) % 2 == 0
"""
CALLBACK = """
@callback("failure")
def tell(*args, **kwargs):
    raise RuntimeError("nobody listens")
"""
FILES = {"custom/run.py": CODE, "sensors/poke.py": SENSOR, "conditionals/may.py": CONDITION}
FILES |= {"callbacks/tell.py": CALLBACK, "utils/__init__.py": "", "utils/seen.py": "seen = {}\n"}


@st.composite
def graphs(draw: st.DrawFn, *, failing: bool) -> list[Spec]:
    """Up to six blocks, each below any of those before it."""
    blocks: list[Spec] = []
    for number in range(draw(st.integers(2, 6))):
        known = [block["uuid"] for block in blocks]
        ups = draw(st.lists(st.sampled_from(known), max_size=3, unique=True)) if known else []
        items = draw(st.none() | st.integers(0, 3))
        own: Spec = {"file_path": "custom/run.py", "items": items, "dynamic": items is not None}
        own |= {"reduce_output": draw(st.booleans()), "flaky": draw(st.booleans()), "fails": 0}
        block: Spec = {"uuid": f"b{number}", "type": "custom", "upstream_blocks": ups, "configuration": own}
        if failing:
            own["fails"] = draw(st.sampled_from([0, 0, 1, 2, 3]))
            block["trigger_rule"] = str(draw(st.sampled_from(["all_success", *TriggerRule])))
            if items is None and draw(st.booleans()):
                block["type"], own["file_path"] = "sensor", "sensors/poke.py"
            block["conditional_blocks"] = draw(st.sampled_from([[], [], ["may"]]))
            block["callback_blocks"] = draw(st.sampled_from([[], ["tell"]]))
        blocks.append(block | {"retry_config": {"retries": 1, "delay": 9}})
    return blocks


def told(value: Any) -> str:
    return "[" + ",".join(map(told, value)) + "]" if isinstance(value, list) else str(value)


class Model:
    """What every block leaves when nothing fails: `values` by block and index, `dims` its dimensions."""

    def __init__(self, blocks: list[Spec]) -> None:
        self._own = {block["uuid"]: block["configuration"] for block in blocks}
        self.dims: dict[str, tuple[str, ...]] = {}
        self.values: dict[str, dict[tuple[int, ...], Any]] = {}
        self._items: dict[str, list[str]] = {}
        for block in blocks:
            self._add(block["uuid"], block["upstream_blocks"])

    def output(self, uuid: str) -> Any:
        """All that a block leaves, in order."""
        values = self.values[uuid]
        return list(values.values()) if self.dims[uuid] else values[()]

    def _add(self, uuid: str, ups: list[str]) -> None:
        dims = tuple(dict.fromkeys(dim for up in ups for dim in self._passed_on(up)))
        found = {}
        for index in itertools.product(*(range(len(self._items[dim])) for dim in dims)):
            at = dict(zip(dims, index, strict=True))
            value = f"{uuid}({','.join(told(self._input(up, at)) for up in ups)})"
            most = self._own[uuid]["items"]
            found[index] = value if most is None else [f"{value}{n}" for n in range(len(value) % (most + 1))]
        self.dims[uuid], self.values[uuid] = dims, found
        if self._own[uuid]["dynamic"]:
            self._items[uuid] = [item for items in found.values() for item in items]

    def _passed_on(self, up: str) -> tuple[str, ...]:
        if self._own[up]["dynamic"]:
            return (up,)
        return () if self._own[up]["reduce_output"] else self.dims[up]

    def _input(self, up: str, at: Mapping[str, int]) -> Any:
        if self._own[up]["dynamic"]:
            return self._items[up][at[up]]
        if self._own[up]["reduce_output"] or not self.dims[up]:
            return self.output(up)
        return self.values[up][tuple(at[dim] for dim in self.dims[up])]

    @property
    def size(self) -> int:
        return sum(map(len, self.values.values()))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graphs")
    (folder / "pipelines/p").mkdir(parents=True)
    for name, text in {**FILES, "metadata.yaml": "name: graphs\n"}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


def run(project: Path, blocks: list[Spec], **asked: Any) -> RunReport:
    hooks = {kind: [{"uuid": name}] for kind, name in (("conditionals", "may"), ("callbacks", "tell"))}
    (project / "pipelines/p/metadata.yaml").write_text(yaml.safe_dump({"blocks": blocks, **hooks}))
    return run_pipeline(project, "p", **asked)


@given(blocks=graphs(failing=False))
@settings(max_examples=50)
def test_every_value_is_what_plain_recursion_says(project: Path, blocks: list[Spec]) -> None:
    model = Model(blocks)
    if model.size > 200:
        return
    report = run(project, blocks).check()
    for block in blocks:
        uuid = block["uuid"]
        wanted = model.output(uuid)
        assert (report.output(uuid) or None) == (wanted or None)
        ran = report.children(uuid) if model.dims[uuid] else [report[uuid]]
        assert len(ran) == len(model.values[uuid])
        assert {block_run.tries for block_run in ran} <= {2 if block["configuration"]["flaky"] else 1}


def spec(uuid: str, *ups: str, items: int | None = None, fails: int = 0, rule: str = "all_success") -> Spec:
    own = {"file_path": "custom/run.py", "items": items, "dynamic": items is not None}
    own |= {"reduce_output": False, "flaky": False, "fails": fails}
    block = {"uuid": uuid, "type": "custom", "upstream_blocks": list(ups), "configuration": own}
    return {**block, "trigger_rule": rule}


# A rule is met by the failure of the very block that would have handed out the items.
@example(
    [spec("x", items=2, fails=1), spec("y", "x", rule="one_failed"), spec("z", "y", rule="always")], False
)
# A rule of its own lets a block run once an item in a run that fails already.
@example([spec("bad", fails=1), spec("x", items=2), spec("y", "x", rule="all_done")], False)
@given(blocks=graphs(failing=True), lenient=st.booleans())
@settings(max_examples=60)
def test_every_run_comes_to_an_end_whatever_fails(project: Path, blocks: list[Spec], lenient: bool) -> None:
    report = run(project, blocks, allow_blocks_to_fail=lenient)
    assert set(report.statuses.values()) <= BLOCK_TERMINAL
    failed = "failed" in report.statuses.values()
    assert report.status == ("failed" if failed else "completed")
    for uuid in (block["uuid"] for block in blocks):
        children = report.children(uuid)
        if report[uuid].status == "completed" and children:
            assert report.output(uuid) == [child.output for child in children if child.status == "completed"]
