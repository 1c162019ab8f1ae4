"""Signals to the service, its warden, its workers and their descendants, at real processes."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.soak import project
from tests.soak.checks import invariants_of
from tests.soak.service import Process, Service, alive, serving, started, wait_for

#: no promise: the limit of a wait, on a machine that has other work too
SOON_S = 30.0

FILES = {
    "metadata.yaml": "name: faults\n",
    "pipelines/stubborn/metadata.yaml": """
        blocks:
        - {uuid: hydra, type: custom, upstream_blocks: []}
        """,
    "custom/hydra.py": """
        import os, signal, time
        from pathlib import Path

        FOLDER = Path(os.environ["SOAK_LEDGER"])

        def hold(name):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            (FOLDER / f"hydra.{name}").write_text(str(os.getpid()))
            while True:
                time.sleep(1)

        @custom
        def hydra(*args, **kwargs):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if os.fork() == 0:
                hold("child")
            if os.fork() == 0:
                if os.fork() == 0:
                    os.setsid()
                    os.environ.clear()
                    hold("grandchild")
                os._exit(0)
            hold("block")
        """,
    "pipelines/steps/metadata.yaml": """
        blocks:
        - {uuid: before, type: custom, upstream_blocks: []}
        - {uuid: middle, type: custom, upstream_blocks: [before]}
        - {uuid: after, type: custom, upstream_blocks: [middle]}
        """,
    "custom/before.py": "@custom\ndef before(*args, **kwargs): return 1\n",
    "custom/after.py": "@custom\ndef after(*args, **kwargs): return 1\n",
    "custom/middle.py": """
        import os, time
        from pathlib import Path

        FOLDER = Path(os.environ["SOAK_LEDGER"])

        @custom
        def middle(*args, **kwargs):
            (FOLDER / f"middle.{kwargs['retry']['attempts']}").write_text(str(os.getpid()))
            while not (FOLDER / "open").exists():
                time.sleep(0.05)
        """,
}


@pytest.fixture
def service(tmp_path: Path) -> Service:
    ledger = tmp_path / "ledger"
    ledger.mkdir()
    return Service(project.write(tmp_path / "project", FILES), ledger)


@pytest.fixture
def client(service: Service) -> Iterator[httpx.Client]:
    with serving(service) as client:
        yield client
    url = f"sqlite:///{service.home / 'runwright.db'}"
    assert invariants_of(url) == []


def noted(service: Service, name: str) -> Process:
    """The process that has written its pid, once it has."""
    path = service.ledger / name
    wait_for(lambda: path.exists() and path.read_text(), SOON_S, f"{name} runs")
    pid = int(path.read_text())
    born = started(pid)
    assert born is not None
    return pid, born


def launch(client: httpx.Client, pipeline: str) -> int:
    answer = client.post(f"/pipelines/{pipeline}/pipeline_runs")
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])


def ended(client: httpx.Client, run: int, seconds: float = SOON_S) -> dict[str, Any]:
    def over() -> bool:
        return client.get(f"/pipeline_runs/{run}").json()["completed_at"] is not None

    wait_for(over, seconds, f"run {run} is over")
    found: dict[str, Any] = client.get(f"/pipeline_runs/{run}").json()
    return found


def outcomes(run: dict[str, Any], block: str) -> list[str]:
    (found,) = [b for b in run["block_runs"] if b["block_uuid"] == block]
    return [attempt["outcome"] for attempt in found["attempts"]]


def test_a_cancelled_block_that_ignores_its_signal_is_gone_with_all_it_started(
    service: Service, client: httpx.Client
) -> None:
    run = launch(client, "stubborn")
    family = {noted(service, f"hydra.{name}") for name in ("block", "child", "grandchild")}
    answer = client.post(f"/pipeline_runs/{run}/cancel", headers={"Prefer": "wait=0"})
    assert answer.json()["status"] == "running"
    assert alive(family) == family, "it has its grace"
    wait_for(lambda: not alive(family), SOON_S, "nothing of the block is alive")
    found = ended(client, run)
    assert (found["status"], outcomes(found, "hydra")) == ("cancelled", ["cancelled"])


def test_a_frozen_service_has_no_user_code_and_goes_on_when_it_thaws(
    service: Service, client: httpx.Client
) -> None:
    run = launch(client, "steps")
    block = noted(service, "middle.1")
    os.kill(service.pid, signal.SIGSTOP)
    wait_for(lambda: not alive({block}), SOON_S, "the block of the frozen service is gone")
    wait_for(lambda: len(service.family()) <= 1, SOON_S, "only the warden is left of what it started")
    os.kill(service.pid, signal.SIGCONT)
    (service.ledger / "open").touch()
    found = ended(client, run)
    assert found["status"] == "completed"
    assert outcomes(found, "before") == ["completed"]
    assert outcomes(found, "middle") == ["lost", "completed"]


def test_workers_and_the_warden_may_be_killed(service: Service, client: httpx.Client) -> None:
    """A killed warden is nobody's fault: the block runs again. A killed worker is a crash of its block."""
    run = launch(client, "steps")
    worker = noted(service, "middle.1")
    warden = int(Path(f"/proc/{worker[0]}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(warden, signal.SIGKILL)
    second = noted(service, "middle.2")
    assert not alive({worker}), "the worker died with its warden, before the next one began"
    os.kill(second[0], signal.SIGKILL)
    found = ended(client, run)
    assert (found["status"], outcomes(found, "middle")) == ("failed", ["lost", "crashed"])
    (service.ledger / "open").touch()
    again = ended(client, launch(client, "steps"))
    assert again["status"] == "completed"


def test_a_killed_service_leaves_nothing_and_its_run_goes_on_at_once(
    service: Service, client: httpx.Client
) -> None:
    run = launch(client, "steps")
    block = noted(service, "middle.1")
    family = service.family()
    assert block in family
    service.kill()
    wait_for(lambda: not alive(family), SOON_S, "nothing of the killed service is alive")
    service.start()
    noted(service, "middle.2")
    service.wait_ready()
    (service.ledger / "open").touch()
    found = ended(client, run)
    assert (found["status"], outcomes(found, "before")) == ("completed", ["completed"])
    assert outcomes(found, "middle") == ["lost", "completed"]


def test_a_service_that_stops_hands_its_run_to_the_next_one(service: Service, client: httpx.Client) -> None:
    run = launch(client, "steps")
    block = noted(service, "middle.1")
    assert service.process is not None
    service.process.send_signal(signal.SIGTERM)
    wait_for(lambda: not service.is_ready(), SOON_S, "it is not ready any more")
    assert alive({block}), "a running block has the drain's time"
    assert service.terminate() == 0  # the second signal: now
    assert not alive({block})
    assert service.family() == set()
    (service.ledger / "open").touch()
    service.start()
    service.wait_ready()
    found = ended(client, run)
    assert (found["status"], outcomes(found, "middle")) == ("completed", ["lost", "completed"])
