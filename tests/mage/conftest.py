"""A project that Mage has run, and Mage's database of it, on each kind of database."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests.cli.conftest import invoke  # noqa: F401 - a fixture of this folder too
from tests.conftest import BACKENDS
from tests.mage.database import Mage
from tests.postgres import Server

PIPELINE = """
name: {uuid}
uuid: {uuid}
type: python
blocks:
- uuid: work
  type: custom
  language: python
  upstream_blocks: []
"""


def add_pipeline(root: Path, uuid: str, more: str = "", triggers: str = "") -> None:
    folder = root / "pipelines" / uuid
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metadata.yaml").write_text(PIPELINE.format(uuid=uuid) + more)
    if triggers:
        (folder / "triggers.yaml").write_text(triggers)


@pytest.fixture(autouse=True)
def logging_restored() -> Iterator[None]:
    """The command sets up logging for its own process, which here is the tests'."""
    log = logging.getLogger()
    before = log.handlers[:], log.level
    yield
    log.handlers[:], level = before
    log.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with the pipeline `etl`."""
    folder = tmp_path / "shop"
    (folder / "custom").mkdir(parents=True)
    (folder / "metadata.yaml").write_text("project_type: standalone\nproject_uuid: shop\n")
    (folder / "custom" / "work.py").write_text(
        "from mage_ai.data_preparation.decorators import custom\n\n\n@custom\ndef work(**kwargs):\n    return 1\n"
    )
    add_pipeline(folder, "etl")
    return folder


@pytest.fixture(params=BACKENDS)
def mage(request: pytest.FixtureRequest) -> Mage:
    """Mage's database, empty, on each backend."""
    found: Mage = request.getfixturevalue(f"mage_{request.param}")
    return found


@pytest.fixture
def mage_sqlite(tmp_path: Path) -> Mage:
    """Mage's database, empty, on SQLite."""
    return Mage(f"sqlite:///{tmp_path / 'mage-ai.db'}")


@pytest.fixture
def mage_postgresql(postgres: Server) -> Iterator[Mage]:
    """Mage's database, empty, on Postgres."""
    name = postgres.create()
    yield Mage(postgres.url(name), postgres)
    postgres.drop(name)
