"""The guide's examples, run as they stand."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from app.testing import BlockReport, RunReport, due, run_block, run_pipeline

ROOT = Path(__file__).resolve().parent.parent.parent
GUIDE = (ROOT / "docs" / "guides" / "testing-pipelines.md").read_text(encoding="utf-8")


def examples() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL):
        namespace: dict[str, Any] = {}
        exec(compile(code, "testing-pipelines.md", "exec"), namespace)
        found |= {name: value for name, value in namespace.items() if name.startswith("test_")}
    return found


EXAMPLES = examples()


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_of_the_guide(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    EXAMPLES[name]()


def test_the_guide_tells_of_everything() -> None:
    assert len(EXAMPLES) >= 5
    arguments = {name for f in (run_block, run_pipeline, due) for name in inspect.signature(f).parameters}
    names = arguments - {"project", "pipeline_uuid", "block_uuid", "pipeline", "attempt"}
    assert [name for name in sorted(names) if f"`{name}`" not in GUIDE and f"{name}=" not in GUIDE] == []
    told = {name for kind in (RunReport, BlockReport) for name in dir(kind) if not name.startswith("_")}
    known = told - {"pipeline_uuid", "uuid"}
    assert [name for name in sorted(known) if f".{name}" not in GUIDE] == []
