"""A project with an interpreter of its own, whose packages are not the service's."""

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pandas
import pytest

from tests.cli.conftest import Invoke, invoke

__all__ = ["invoke"]  # a fixture

FILES = {
    "metadata.yaml": "name: old_pandas\npython: venv/bin/python\n",
    "pipelines/etl/metadata.yaml": """
        blocks:
        - {uuid: load, type: data_loader, configuration: {dynamic: true}}
        - {uuid: look, type: transformer, upstream_blocks: [load]}
        """,
    "data_loaders/load.py": """
        import pandas as pd

        @data_loader
        def load(*args, **kwargs):
            return [[pd.Index([1, 2]), pd.Index([3])]]
        """,
    "transformers/look.py": """
        import sys

        import pandas as pd

        if 'test' not in globals():
            from mage_ai.data_preparation.decorators import test

        @transformer
        def look(index, *args, **kwargs):
            assert type(index) is pd.Index, type(index)
            print(f"pandas {pd.__version__} of {sys.prefix}, {len(index)} entries")
            return index

        @test
        def test_output(index, *args):
            assert len(index) > 0
        """,
}
#: The names that matter of a pandas from long ago: other version, other class, nothing that ours has.
FAKE = """
__version__ = "1.5.3"


class Index:
    def __init__(self, values):
        self.values = values

    def __len__(self):
        return len(self.values)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "old_pandas"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(dedent(text))
    command = [
        getattr(sys, "_base_executable", sys.executable),
        "-m",
        "venv",
        "--without-pip",
        folder / "venv",
    ]
    subprocess.run(command, check=True)
    (packages,) = (folder / "venv").glob("lib/python*/site-packages")
    (packages / "pandas").mkdir()
    (packages / "pandas" / "__init__.py").write_text(FAKE)
    return folder


def test_blocks_see_the_packages_of_the_projects_own_venv(project: Path, invoke: Invoke) -> None:
    assert pandas.__version__ != "1.5.3", "the service has another one"
    code, out, errors = invoke("run", project, "etl")
    assert code == 0, out + errors
    for count in (2, 1):
        assert f"pandas 1.5.3 of {project / 'venv'}, {count} entries" in out
