"""Global variables that Mage keeps outside the pipelines' files: reported, written only when asked."""

import json
from pathlib import Path

import yaml

from tests.cli.conftest import Invoke
from tests.mage.conftest import add_pipeline
from tests.mage.database import Mage


def store(folder: Path, uuid: str, **variables: object) -> None:
    for name, value in variables.items():
        place = folder / "pipelines" / uuid / ".variables" / "global" / name
        place.mkdir(parents=True)
        (place / "data.json").write_text(json.dumps(value))


def variables(invoke: Invoke, root: Path, mage: Mage, *more: str) -> dict[tuple[str, str], tuple[str, str]]:
    _, out, _ = invoke("import-mage", root, "--database-url", mage.url, "-o", "json", *more)
    found = [line for line in json.loads(out) if line["kind"] == "global variable"]
    return {(line["pipeline"], line["name"]): (line["result"], line["why"]) for line in found}


def test_they_are_reported_and_no_file_is_touched(
    invoke: Invoke, root: Path, mage_sqlite: Mage, tmp_path: Path
) -> None:
    add_pipeline(root, "own", "variables: {env: prod}\n")
    data = tmp_path / "data"
    store(data, "etl", env="dev", top=5)
    store(data, "own", env="dev")
    before = (root / "pipelines/etl/metadata.yaml").read_text()
    found = variables(invoke, root, mage_sqlite, "--variables-dir", str(data))
    assert set(found) == {("etl", "env"), ("etl", "top")}, (
        "a file that has variables is the truth, as in Mage"
    )
    assert all(result == "refused" and "--write-variables" in why for result, why in found.values())
    assert (root / "pipelines/etl/metadata.yaml").read_text() == before


def test_they_are_written_when_asked_and_the_rest_of_the_file_stays(
    invoke: Invoke, root: Path, mage_sqlite: Mage, tmp_path: Path
) -> None:
    add_pipeline(root, "nulled", "variables: null  # none yet\ntags: [x]\n")
    data = tmp_path / "data"
    store(data, "etl", env="dev", list=[1, {"a": None}], text="ja: \u00fc # no comment\n")
    store(data, "nulled", top=5)
    before = {uuid: (root / f"pipelines/{uuid}/metadata.yaml").read_text() for uuid in ("etl", "nulled")}
    asked = ("--variables-dir", str(data), "--write-variables")
    variables(invoke, root, mage_sqlite, *asked, "--dry-run")
    assert (root / "pipelines/etl/metadata.yaml").read_text() == before["etl"]
    found = variables(invoke, root, mage_sqlite, *asked)
    assert {result for result, _ in found.values()} == {"taken"}
    after = {uuid: (root / f"pipelines/{uuid}/metadata.yaml").read_text() for uuid in before}
    assert after["etl"].startswith(before["etl"])
    wanted = {"env": "dev", "list": [1, {"a": None}], "text": "ja: \u00fc # no comment\n"}
    assert yaml.safe_load(after["etl"])["variables"] == wanted
    assert after["nulled"] == before["nulled"].replace("variables: null  # none yet", "variables:\n  top: 5")
    assert variables(invoke, root, mage_sqlite, *asked) == {}, "now the files have them"
    code, out, _ = invoke("validate", root)
    assert code == 0, out


def test_the_variables_dir_of_the_project_is_looked_into(
    invoke: Invoke, root: Path, mage_sqlite: Mage, tmp_path: Path
) -> None:
    (root / "metadata.yaml").write_text(f"project_uuid: shop\nvariables_dir: {tmp_path / 'kept'}\n")
    store(tmp_path / "kept" / "shop", "etl", top=5)
    (tmp_path / "kept/shop/pipelines/etl/.variables/global/frame").mkdir()
    found = variables(invoke, root, mage_sqlite)
    assert {name for _, name in found} == {"frame", "top"}
    assert "no JSON" in found["etl", "frame"][1]
