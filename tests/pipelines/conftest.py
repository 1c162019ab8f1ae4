"""A project folder to fill: `project.write("pipelines/etl/metadata.yaml", ...)`."""

import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest

from app.models.pipeline import Pipeline
from app.pipelines.catalogue import Catalogue, CatalogueEntry
from app.scheduler.catchup import judge


class Project:
    """A project in a temporary folder, with shortcuts for what nearly every test needs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def write(self, path: str, text: str = "") -> Path:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(textwrap.dedent(text).lstrip("\n"))
        return target

    def blocks(self, *uuids: str, kind: str = "custom") -> None:
        for uuid in uuids:
            folder = kind if kind == "custom" else f"{kind}s"
            self.write(f"{folder}/{uuid}.py", "x = 1\n")

    def pipeline(self, text: str, uuid: str = "etl") -> Path:
        return self.write(f"pipelines/{uuid}/metadata.yaml", text)

    def triggers(self, text: str, uuid: str = "etl") -> Path:
        if not (self.root / f"pipelines/{uuid}/metadata.yaml").exists():
            self.pipeline("blocks: []", uuid)
        return self.write(f"pipelines/{uuid}/triggers.yaml", text)

    def catalogue(self, environ: Mapping[str, str] | None = None) -> Catalogue:
        catalogue = Catalogue(self.root, environ, judge)
        assert catalogue.refresh()
        return catalogue

    def entry(self, uuid: str = "etl") -> CatalogueEntry:
        return {entry.uuid: entry for entry in self.catalogue().entries()}[uuid]

    def load(self, uuid: str = "etl") -> Pipeline:
        return self.catalogue().get(uuid)

    def error(self, uuid: str = "etl") -> str:
        entry = self.entry(uuid)
        assert entry.pipeline is None
        return str(entry.error)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "shop")
