"""The files in deploy/ and the guide say what is true of this program."""

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from configparser import RawConfigParser
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.cli.exits import Exit
from app.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
GUIDE = ROOT / "docs" / "guides" / "from-one-laptop-to-replicas.md"
NAMES = {PREFIX + name.upper() for name in Settings.model_fields}


def names_in(text: str) -> set[str]:
    """The settings that a text names, without `_FILE`."""
    found = re.findall(rf"\b{PREFIX}[A-Z_]*[A-Z]\b", text)
    return {name.removesuffix("_FILE") for name in found if not name.endswith("_X")} - {f"{PREFIX}X"}


@pytest.mark.parametrize("file", ["deploy/compose.yaml", "deploy/runwright.service", "Dockerfile"])
def test_every_setting_that_is_named_exists(file: str) -> None:
    named = names_in((ROOT / file).read_text())
    assert named and named <= NAMES


def test_the_guide_explains_every_setting_and_no_other() -> None:
    rows = re.findall(rf"^\| `({PREFIX}[A-Z_]+)` \|", GUIDE.read_text(), flags=re.M)
    assert sorted(rows) == sorted(NAMES)


def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((DEPLOY / "compose.yaml").read_text()))


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def test_the_replicas_share_what_they_must_and_are_asked_whether_they_live() -> None:
    services = compose()["services"]
    nodes = [service for name, service in services.items() if name.startswith("node")]
    assert len(nodes) == 3
    assert len({port for node in nodes for port in node["ports"]}) == 3
    for node in nodes:
        assert node["volumes"] == nodes[0]["volumes"]
        assert node["environment"] == nodes[0]["environment"]
        assert node["read_only"] and node["init"]
        assert node["depends_on"] == {"schema": {"condition": "service_completed_successfully"}}
        drain = Settings.model_fields["drain_s"].default + Settings.model_fields["kill_grace_s"].default
        assert seconds(node["stop_grace_period"]) > drain
    assert services["schema"]["command"][:3] == ["runwright", "db", "upgrade"]
    assert set(services["db"]["secrets"]) | set(nodes[0]["secrets"]) == set(compose()["secrets"])


def unit() -> RawConfigParser:
    parser = RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((DEPLOY / "runwright.service").read_text())
    return parser


def test_the_unit_agrees_with_the_exit_codes_and_the_drain() -> None:
    service = unit()["Service"]
    assert int(service["RestartPreventExitStatus"]) == Exit.REFUSED
    drain = Settings.model_fields["drain_s"].default + Settings.model_fields["kill_grace_s"].default
    assert float(service["TimeoutStopSec"]) > drain
    assert (service["KillMode"], service["Restart"], service["Type"]) == ("mixed", "always", "exec")
    assert service["NoNewPrivileges"] == "true" and service["ProtectSystem"] == "strict"


def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not here")
    text = (DEPLOY / "runwright.service").read_text()
    file = tmp_path / "runwright.service"
    file.write_text(
        re.sub(r"^(User|Group)=.*$", "", text, flags=re.M).replace(
            "/opt/runwright/bin/runwright", "/bin/true"
        )
    )
    done = subprocess.run(["systemd-analyze", "verify", file], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")


@contextmanager
def answering(status: int) -> Iterator[int]:
    """An HTTP server that answers every request with one status; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/livez" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_the_health_check_of_the_image_tells_life_from_death() -> None:
    text = (ROOT / "Dockerfile").read_text()
    (command,) = re.findall(r"HEALTHCHECK .*\\\n\s*CMD (\[.*\])", text)
    program, *arguments = json.loads(command)
    assert program == "python"

    def healthy(port: int) -> bool:
        env = {f"{PREFIX}PORT": str(port)}
        return subprocess.run([sys.executable, *arguments], env=env, capture_output=True).returncode == 0

    with answering(200) as port:
        assert healthy(port)
    with answering(503) as sick:
        assert not healthy(sick)
    assert not healthy(port)


def test_the_image_runs_as_nobody_in_particular_and_gets_its_signals() -> None:
    text = (ROOT / "Dockerfile").read_text()
    final = text.rpartition("\nFROM ")[2]
    assert re.search(r"^USER runwright$", final, flags=re.M)
    (command,) = re.findall(r"^CMD (\[.*\])$", final, flags=re.M)  # the exec form: no shell between
    assert json.loads(command)[:2] == ["runwright", "start"]
    wanted = {
        word for line in re.findall(r"^COPY (?!--)(.*) \S+$", text, flags=re.M) for word in line.split()
    }
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("!")}
    assert wanted <= allowed and all((ROOT / name).exists() for name in wanted)
