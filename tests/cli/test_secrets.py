"""`runwright secrets` without a service, and runs that use them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli.root import program
from app.store.vault import FILE
from tests.cli.conftest import Invoke, environment

ASK = """
from mage_ai.data_preparation.shared.secrets import get_secret_value
@custom
def ask(*args, **kwargs):
    print('the value is', get_secret_value('pw'))
    return len(get_secret_value('pw'))
"""


@pytest.fixture(autouse=True)
def asking(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("RUNWRIGHT_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(project)
    (project / "pipelines/asks").mkdir()
    text = "blocks:\n- {uuid: ask, type: custom}\n- {uuid: below, type: custom, upstream_blocks: [ask]}\n"
    (project / "pipelines/asks/metadata.yaml").write_text(text)
    (project / "custom").mkdir(exist_ok=True)
    (project / "custom/ask.py").write_text(ASK)
    (project / "custom/below.py").write_text("@custom\ndef f(n, *args, **kwargs):\n    print('got', n)\n")


def put(name: str, value: str) -> None:
    done = CliRunner().invoke(program, ["secrets", "set", name], input=value)
    assert (done.exit_code, done.stdout) == (0, f"secret '{name}' is set\n")


def test_they_are_set_listed_rotated_and_removed(invoke: Invoke, project: Path) -> None:
    assert invoke("secrets", "ls")[1] == "no secrets\n"
    put("pw", "hunter22\n")
    put("other", "x")
    code, out, _ = invoke("secrets", "ls", "-o", "json")
    assert (code, [row["name"] for row in json.loads(out)]) == (0, ["other", "pw"])
    assert "hunter22" not in out
    before = (project / ".runwright" / FILE).read_text()
    assert invoke("secrets", "rotate")[:2] == (0, "2 secrets are sealed with the first key\n")
    assert (project / ".runwright" / FILE).read_text() != before
    assert invoke("secrets", "rm", "other")[0] == 0
    code, _, err = invoke("secrets", "rm", "other")
    assert (code, err) == (3, "runwright: There is no secret 'other'.\n")
    assert len(invoke("secrets", "key")[1].strip()) == 44


def test_a_run_from_the_command_line_has_the_projects_secrets(project: Path) -> None:
    put("pw", "hunter22\n")
    command = [Path(sys.executable).parent / "runwright", "run", project, "asks", "--block-uuid", "below"]
    alone = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment())
    assert alone.returncode == 2 and "reads from 'ask'" in alone.stderr
    done = subprocess.run(
        [*command, "--with-upstream"], capture_output=True, text=True, timeout=60, env=environment()
    )
    assert done.returncode == 0, done.stderr
    assert "the value is ***" in done.stdout + done.stderr and "got 8" in done.stdout + done.stderr
    assert "hunter22" not in done.stdout + done.stderr
