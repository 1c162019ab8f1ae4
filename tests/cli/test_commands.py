"""The commands that look: validate, doctor, cron explain, and the program itself."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from app import __version__
from tests.cli.conftest import Invoke

PROBE = """
import sys
sys.argv = ["runwright", "--help"]
from app.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code
heavy = {"sqlalchemy", "fastapi", "uvicorn", "pydantic", "rich", "asyncio"} & set(sys.modules)
assert not heavy, heavy
"""


def test_help_imports_nothing_heavy() -> None:
    subprocess.run([sys.executable, "-c", PROBE], check=True, timeout=30)


def test_the_version_is_shown(invoke: Invoke) -> None:
    assert invoke("--version") == (0, f"runwright {__version__}\n", "")


def test_validate_names_file_and_line_of_every_fault(invoke: Invoke, project: Path) -> None:
    (project / "custom/explode.py").write_text("def explode(:\n")
    code, out, _ = invoke("validate", project, "-o", "json")
    errors = [(row["file"], row["line"]) for row in json.loads(out) if row["level"] == "error"]
    assert code == 1
    assert errors == [
        ("pipelines/invalid/metadata.yaml", 4),
        ("custom/explode.py", 1),
        ("pipelines/hello/triggers.yaml", 9),
    ]
    code, out, _ = invoke("validate", project)
    assert code == 1 and "LEVEL" in out.splitlines()[0]
    assert "custom/explode.py:1: not valid Python" in out


def test_validate_is_content_with_a_good_project(invoke: Invoke, project: Path) -> None:
    (project / "pipelines/invalid/metadata.yaml").unlink()
    (project / "pipelines/hello/triggers.yaml").unlink()
    code, out, _ = invoke("validate", project)
    assert code == 0 and "valid" in out


def test_validate_reports_a_project_file_that_cannot_be_read(invoke: Invoke, project: Path) -> None:
    (project / "metadata.yaml").write_text("name: [\n")
    code, out, _ = invoke("validate", project)
    assert code == 1 and "metadata.yaml:" in out


@pytest.mark.parametrize("command", [["validate"], ["doctor"], ["run", "hello"], ["start"]])
def test_a_folder_that_is_no_project_is_left_alone(
    invoke: Invoke, tmp_path: Path, command: list[str]
) -> None:
    name, *rest = command
    code, _, errors = invoke(name, tmp_path, *rest)
    assert code == 3 and "is no project" in errors
    assert list(tmp_path.iterdir()) == []


def test_doctor_finds_everything_in_order(invoke: Invoke, project: Path) -> None:
    code, out, _ = invoke("doctor", project, "-o", "json")
    found = {row["check"]: row for row in json.loads(out)}
    assert set(found) >= {"python", "sqlite", "project", "home", "database", "port", "interpreter", "workers"}
    wrong = [row for row in found.values() if row["status"] != "ok" and row["check"] != "port"]
    assert wrong == []
    assert code == (0 if found["port"]["status"] == "ok" else 1)


def test_doctor_names_an_interpreter_that_does_not_start(
    invoke: Invoke, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNWRIGHT_PYTHON", str(project / "no-python"))
    code, out, _ = invoke("doctor", project, "-o", "json")
    found = {row["check"]: row for row in json.loads(out)}
    assert code == 1 and found["interpreter"]["status"] == "failed"
    assert "no-python" in found["interpreter"]["detail"]


def test_cron_explain_shows_the_next_dates(invoke: Invoke) -> None:
    code, out, _ = invoke(
        "cron", "explain", "30 6 * * *", "--timezone", "Asia/Kolkata", "--count", "2", "-o", "json"
    )
    rows = json.loads(out)
    assert code == 0 and len(rows) == 2
    assert all(row["utc"].endswith("T01:00:00Z") and "06:30:00 +0530" in row["local"] for row in rows)


def test_cron_explain_refuses_what_is_no_interval(invoke: Invoke) -> None:
    code, _, errors = invoke("cron", "explain", "whenever")
    assert code == 2 and "whenever" in errors
