"""The service as a process, over a real socket."""

import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app.server import PortTaken, listen
from tests.cli.conftest import BIN, Invoke, environment
from tests.soak.outage import wired


@contextmanager
def service(
    project: Path, *options: str, **more: str
) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """A started service and a client of it; killed at the end if it still runs."""
    command = [BIN / "runwright", "start", project, "--port", "0", *options]
    found = project / ".runwright" / "service.json"
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment(**more)) as going:
        try:
            deadline = time.monotonic() + 20
            while not found.exists():
                assert going.poll() is None, going.communicate()[1]
                assert time.monotonic() < deadline
                time.sleep(0.02)
            with httpx.Client(base_url=json.loads(found.read_text())["url"], timeout=70) as client:
                yield going, client
        finally:
            if going.poll() is None:
                going.kill()


def test_it_serves_announces_itself_and_stops_on_a_signal(invoke: Invoke, project: Path) -> None:
    with service(project) as (going, client):
        assert client.get("/readyz").status_code == 200
        run = client.post(
            "/api/v1/pipelines/hello/pipeline_runs", json={}, headers={"Prefer": "wait=30"}
        ).json()
        assert run["status"] == "completed"
        assert_oversize_is_refused(client.base_url)
        assert_a_head_without_end_is_refused(client.base_url)
        assert_what_is_no_http_is_refused(client.base_url)
        assert_a_second_service_is_refused(invoke, project)
        assert_doctor_knows_the_port(invoke, project, client.base_url)
        going.send_signal(signal.SIGTERM)
        _, log = going.communicate(timeout=30)
    assert going.returncode == 0
    assert f"serves {str(client.base_url).rstrip('/')}" in log
    assert str(project) in log and "sqlite:///" in log
    assert (
        "1 active, 1 with an error" in log
        and "next: hello/yearly at " in log
        and "-01-01 00:00:00 UTC" in log
    )
    assert not (project / ".runwright" / "service.json").exists()
    assert (project / ".runwright" / ".gitignore").read_text() == "*\n"


def assert_a_second_service_is_refused(invoke: Invoke, project: Path) -> None:
    code, _, errors = invoke("start", project, "--port", "0")
    assert code == 78
    assert "Another service" in errors and "WARNING" not in errors
    assert (project / ".runwright" / "service.json").exists()


def assert_doctor_knows_the_port(invoke: Invoke, project: Path, url: httpx.URL) -> None:
    code, out, _ = invoke("doctor", project, RUNWRIGHT_PORT=str(url.port))
    assert code == 0 and f"{url.port} is taken, by this project's own service" in out


def assert_oversize_is_refused(url: httpx.URL) -> None:
    """A chunked body without end is answered long before its sender is through."""
    with socket.create_connection((url.host, url.port or 80), timeout=10) as connection:
        head = "POST /api/v1/pipelines/hello/pipeline_runs HTTP/1.1\r\nHost: localhost\r\n"
        head += "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head.encode())
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        try:
            for _ in range(64):
                connection.sendall(chunk)
        except OSError:
            pass  # it hung up on us, as it should
        answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"application/problem+json" in answer and b"connection: close" in answer.lower()


def assert_a_head_without_end_is_refused(url: httpx.URL) -> None:
    """The parser would collect it in memory."""
    with socket.create_connection((url.host, url.port or 80), timeout=10) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Long: ")
        try:
            for _ in range(64):
                connection.sendall(b"x" * 0x10000)
        except OSError:
            pass  # it hung up on us, as it should
        assert_problem(connection.recv(4096), 431)


def assert_what_is_no_http_is_refused(url: httpx.URL) -> None:
    for sent in (
        b"\x16\x03\x01 hello TLS",
        b"GET /livez HTTP/1.1\r\nHost: a\x00b\r\n\r\n",
        b"\r\n" * 9 + b"?\r\n\r\n",
    ):
        with socket.create_connection((url.host, url.port or 80), timeout=10) as connection:
            connection.sendall(sent)
            assert_problem(connection.recv(4096), 400)


def assert_problem(answer: bytes, status: int) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"application/problem+json" in head and b"connection: close" in head.lower()
    assert json.loads(body)["status"] == status


def test_a_second_signal_does_not_wait_for_blocks(project: Path) -> None:
    with service(project) as (going, client):
        assert client.post("/api/v1/pipelines/slow/pipeline_runs").status_code == 201
        going.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 5
        while client.get("/readyz").status_code != 503:
            assert time.monotonic() < deadline
        refused = client.post("/api/v1/pipelines/hello/pipeline_runs")
        assert (refused.status_code, refused.json()["code"]) == (503, "not_ready")
        going.send_signal(signal.SIGTERM)
        going.communicate(timeout=15)  # the drain alone would be 30 s
    assert going.returncode == 0


def test_a_busy_port_is_one_clear_line(invoke: Invoke, project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, errors = invoke("start", project, PORT=str(port))
    assert code == 1
    assert f"Port {port} on 127.0.0.1 is in use." in errors
    assert "PORT=" in errors and "--port" in errors
    assert not (project / ".runwright" / "runwright.db").exists()


def test_a_port_is_taken_before_anything_is_answered_on_it() -> None:
    with listen("127.0.0.1", 0) as first, pytest.raises(PortTaken, match="in use"):
        listen("127.0.0.1", first.getsockname()[1])


@pytest.mark.parametrize("host", ["no.such.host.invalid", "203.0.113.1"])
def test_an_address_that_is_not_ours_is_refused(host: str) -> None:
    with pytest.raises(PortTaken, match="Cannot listen"):
        listen(host, 0)


def test_an_open_bind_needs_a_key(invoke: Invoke, project: Path) -> None:
    code, _, errors = invoke("start", project, "--host", "0.0.0.0", "--port", "0")
    assert code == 78
    assert "RUNWRIGHT_ADMIN_KEY" in errors and "at least 32 characters" in errors
    assert invoke("start", project, "--host", "0.0.0.0", RUNWRIGHT_ADMIN_KEY="short")[0] == 78


@pytest.mark.parametrize(
    ("name", "value"),
    [("DRAIN_S", "-1"), ("LOG_LEVEL", "loud"), ("WORKERS", "many"), ("HOME", "/dev/null/home")],
)
def test_senseless_settings_are_refused(invoke: Invoke, project: Path, name: str, value: str) -> None:
    code, _, errors = invoke("start", project, "--port", "0", **{f"RUNWRIGHT_{name}": value})
    assert code == 78
    assert f"RUNWRIGHT_{name}" in errors


def test_a_database_that_does_not_answer_is_one_clear_line(invoke: Invoke, project: Path) -> None:
    url = "postgresql://me:secret@127.0.0.1:1/runs"
    code, _, errors = invoke("start", project, "--port", "0", "--database-url", url)
    assert code == 7
    assert errors.startswith("runwright: The database postgresql://me:***@127.0.0.1:1/runs cannot be used: ")
    assert len(errors.splitlines()) == 2


@pytest.mark.parametrize("at", [b"alembic_version", b"pg_backend_pid"])
def test_a_database_that_goes_away_during_the_start_is_one_clear_line(
    invoke: Invoke, project: Path, postgres_url: str, at: bytes
) -> None:
    with wired(postgres_url) as wire:
        wire.break_at(at)
        given = ("start", project, "--port", "0", "--database-url", wire.url)
        code, _, errors = invoke(*given, RUNWRIGHT_LOG_LEVEL="ERROR")
        assert wire.is_broken
    assert (code, errors.splitlines()[0]) == (7, "runwright: Postgres does not answer")
    assert len(errors.splitlines()) == 2
