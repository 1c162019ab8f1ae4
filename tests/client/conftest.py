"""One real service on a socket for all tests of the client, and a proxy before it that fails as it is told."""

import socket
import subprocess
import time
from collections import deque
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from textwrap import dedent
from threading import Thread
from typing import Any

import httpx
import pytest

from app.client import Client, Retries
from tests.api.project import make_project
from tests.cli.conftest import BIN, environment
from tests.cli.conftest import invoke as invoke  # the command line, as a fixture

#: Quick, so that a test of repeating costs nothing.
QUICK = Retries(count=6, first_s=0.01, cap_s=0.05)


#: What the tests of the client need besides the tests' common project.
FILES = {
    "pipelines/talk/metadata.yaml": "blocks: [{uuid: talk, type: custom, upstream_blocks: []}]\n",
    "custom/talk.py": """
        @custom
        def talk(*args, **kwargs):
            for number in range(200):
                print('line', number)
        """,
    "pipelines/two_parts/metadata.yaml": """
        blocks:
        - {uuid: part_one, type: custom, upstream_blocks: []}
        - {uuid: part_two, type: custom, upstream_blocks: [part_one]}
        """,
    "custom/part_one.py": """
        @custom
        def part_one(*args, **kwargs):
            print('part one')
        """,
    "custom/part_two.py": """
        import time
        from pathlib import Path

        @custom
        def part_two(*args, **kwargs):
            print('part two begins', flush=True)
            while not Path('go').exists():
                time.sleep(0.02)
            print('part two ends')
        """,
}


class Service:
    """`runwright start` on a project; it may be killed and started again."""

    def __init__(self, project: Path) -> None:
        self.project = project
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start, and wait until it is ready."""
        command = [BIN / "runwright", "start", self.project, "--port", str(self.port)]
        self._process = subprocess.Popen(
            command, env=environment(RUNWRIGHT_WORKERS="2", RUNWRIGHT_WARM_WORKERS="1", RUNWRIGHT_DRAIN_S="0")
        )
        deadline = time.monotonic() + 30
        while not self._is_ready():
            assert self._process.poll() is None, "the service has ended"
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz").is_success
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        """Kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(timeout=10)

    def stop(self) -> None:
        """Stop it as an operator does."""
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(timeout=20)
        finally:
            self._process.kill()


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    project = make_project(tmp_path_factory.mktemp("client") / "project")
    for name, text in FILES.items():
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text(dedent(text).lstrip())
    found = Service(project)
    found.start()
    yield found
    found.stop()


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with Client(service.url, retries=QUICK) as found:
        yield found


class Proxy(ThreadingHTTPServer):
    """Passes requests on, unless `faults` names something else for the next one.

    `refuse`: hang up before anything is passed on · `lose`: pass it on and hang up instead of answering ·
    a status: answer with it · `cut:N`: pass N bytes of the answer's body on, then hang up.
    """

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = target
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.faults: deque[str] = deque()
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.retry_after = "0"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.seen.append((self.command, self.path, headers))
        fault = self.server.faults.popleft() if self.server.faults else ""
        self.close_connection = bool(fault)
        if fault == "refuse":
            return
        if fault.isdigit():
            self.send_response(int(fault))
            self.send_header("Retry-After", self.server.retry_after)
            self.send_header("Content-Length", "0")
            self.send_header("Connection", "close")  # else the client finds it closed: a try that nobody sees
            self.end_headers()
            return
        del headers["host"]
        headers["accept-encoding"] = "identity"
        with httpx.stream(
            self.command, self.server.target + self.path, headers=headers, content=body, timeout=30
        ) as answer:
            self._answer(answer, fault)

    def _answer(self, answer: httpx.Response, fault: str) -> None:
        if fault == "lose":
            answer.read()
            return
        self.send_response(answer.status_code)
        for name, value in answer.headers.items():
            if name not in ("transfer-encoding", "connection", "date"):
                self.send_header(name, value)
        self.send_header("Connection", "close")  # the end of the body is the end of the connection
        self.end_headers()
        self.close_connection = True
        left = int(fault.partition(":")[2] or 2**62)
        for chunk in answer.iter_raw():
            self.wfile.write(chunk[:left])
            left -= len(chunk)
            if left <= 0:
                return

    do_GET = do_POST = do_PATCH = do_DELETE = _pass_on

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def proxy(service: Service) -> Iterator[Proxy]:
    with Proxy(service.url) as found:
        thread = Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        found.shutdown()
        thread.join()
