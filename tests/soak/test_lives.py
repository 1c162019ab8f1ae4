"""Replicas on Postgres, one of which is frozen for longer than its lease: real signals at real processes."""

import os
import signal
from pathlib import Path

import httpx

from tests.soak import project
from tests.soak.checks import invariants_of
from tests.soak.service import Service, alive, serving, wait_for
from tests.soak.test_faults import FILES, ended, launch, noted, outcomes

LEASE_S = 6.0


def replica(folder: Path, name: str, url: str) -> Service:
    """A service of its own on the project, with a home and a ledger of its own."""
    home = folder / name
    home.mkdir()
    settings = {"RUNWRIGHT_DATABASE_URL": url, "RUNWRIGHT_LEASE_S": str(LEASE_S)}
    return Service(project.write(home / "faults", FILES), home, settings, name=name)


def nodes_of(service: Service) -> dict[int, str]:
    """pid -> id of the nodes that live."""
    answer = httpx.get(f"{service.url}/health", timeout=5)
    return {node["pid"]: node["id"] for node in answer.json()["nodes"]}


def test_a_replica_frozen_for_longer_than_its_lease_comes_back_as_another_node(
    tmp_path: Path, postgres_url: str
) -> None:
    frozen, heir = replica(tmp_path, "frozen", postgres_url), replica(tmp_path, "heir", postgres_url)
    with serving(frozen) as client, serving(heir) as other:
        before = nodes_of(heir)
        assert set(before) == {frozen.pid, heir.pid}
        run = launch(client, "steps")
        block = noted(frozen, "middle.1")
        os.kill(frozen.pid, signal.SIGSTOP)
        noted(heir, "middle.2")
        assert not alive({block}), "its user code was gone before its lease was"
        assert frozen.pid not in nodes_of(heir), "it was fenced before its run was taken over"
        os.kill(frozen.pid, signal.SIGCONT)
        wait_for(
            lambda: frozen.pid in nodes_of(heir), 20, "the frozen one registers anew, in the same process"
        )
        assert nodes_of(heir)[frozen.pid] != before[frozen.pid]
        frozen.wait_ready()
        (heir.ledger / "open").touch()
        found = ended(other, run)
        assert (found["status"], outcomes(found, "middle")) == ("completed", ["lost", "completed"])
        (frozen.ledger / "open").touch()
        again = ended(client, launch(client, "steps"))
        assert again["status"] == "completed"
    assert invariants_of(postgres_url) == []
