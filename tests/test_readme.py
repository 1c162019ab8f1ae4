"""The README's tour, typed as it stands: its commands succeed, and what it promises about them is so."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
#: Generous: a slow machine may take long, a healthy one does not wait.
PATIENCE_S = 60


def tour() -> list[str]:
    """The shell blocks of the section, in order."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("\n## Five minutes\n")[1].split("\n## ")[0]
    return re.findall(r"```sh\n(.*?)```", section, re.DOTALL)


class Terminal:
    """A newcomer's two terminals, with the example in a folder of its own and the service on a free port."""

    def __init__(self, project: Path) -> None:
        self.project = project
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.service: subprocess.Popen[bytes] | None = None

    def type(self, script: str) -> str:
        """Run one block of the tour; its output."""
        if script.strip() == "make start":
            self.start()
            return ""
        script = script.replace("source .venv/bin/activate\n", f"PATH={BIN}:$PATH\n")
        script = script.replace("examples/quickstart", str(self.project)).replace(":8000", f":{self.port}")
        script = script.replace("curl -s", "curl -sS --fail-with-body")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            env={**os.environ, "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def start(self) -> None:
        if self.service is not None:
            self.service.wait(timeout=PATIENCE_S)  # it has been killed by the tour
        command = [BIN / "runwright", "start", self.project, "--port", str(self.port)]
        self.service = subprocess.Popen(command)
        self.wait_for("/readyz", lambda answer: answer["status"] == "ready")

    def wait_for(self, path: str, done: Any) -> Any:
        """Ask until the answer is as wished."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                    if done(found := json.load(answer)):
                        return found
            except OSError:
                assert self.service is not None and self.service.poll() is None, "the service has ended"
            time.sleep(0.05)
        raise AssertionError(f"{path} was never as wished")

    def close(self) -> None:
        if self.service is not None:
            self.service.terminate()
            try:
                self.service.wait(timeout=PATIENCE_S)
            finally:
                self.service.kill()


@pytest.fixture
def terminal(quickstart: Path) -> Iterator[Terminal]:
    found = Terminal(quickstart)
    yield found
    found.close()


def test_the_tour_is_true(terminal: Terminal) -> None:
    said = [terminal.type(block) for block in tour()]
    everything = "\n".join(said)
    assert '"uuid": "shop"' in everything and '"name": "every_minute"' in everything
    assert '"status": "completed"' in said[2] and "Ada" in said[2]
    assert '"text": "count_one: 1"' in said[3] and '"status": "cancelled"' in said[3]
    assert "HELLO, ADA!" in everything and "no note today" in everything
    assert re.search(r"ValueError.*custom/greet\.py:\d+", said[-1], re.DOTALL)
    newest = "/api/v1/pipeline_runs?pipeline_uuid=slow_count&limit=1"
    run = terminal.wait_for(newest, lambda page: page["items"][0]["status"] == "completed")["items"][0]
    blocks = terminal.wait_for(f"/api/v1/pipeline_runs/{run['id']}", lambda _: True)["block_runs"]
    assert [block["status"] for block in blocks] == ["completed"] * 3
    # Killed in the first block (or a moment before it): the others have one attempt each.
    assert [len(block["attempts"]) for block in blocks][1:] == [1, 1]
