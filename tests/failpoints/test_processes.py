"""The same with real processes: a service that is told to SIGKILL itself at a place, and the next one."""

from pathlib import Path

import httpx
import pytest

from tests.soak import project
from tests.soak.checks import invariants_of
from tests.soak.service import Service, read_ledger, serving, wait_for
from tests.soak.test_faults import ended

FILES = {
    "metadata.yaml": "name: killed\n",
    "utils/__init__.py": "",
    "utils/effects.py": project.EFFECTS,
    "pipelines/steps/metadata.yaml": """
        blocks:
        - {uuid: a, type: custom, upstream_blocks: []}
        - {uuid: b, type: custom, upstream_blocks: [a]}
        """,
}
BLOCK = """
from utils import effects

@custom
def block(*args, **kwargs):
    with effects.effect(kwargs, 0.0):
        return 1
"""


@pytest.mark.parametrize("rule", ["launch.after_commit=kill", "attempt.result_received=kill@2"])
def test_a_service_that_kills_itself_at_a_place_has_lost_nothing(rule: str, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    ledger.mkdir()
    files = {**FILES, "custom/a.py": BLOCK, "custom/b.py": BLOCK}
    failing = {"RUNWRIGHT_TESTING": "true", "RUNWRIGHT_FAILPOINTS": rule}
    service = Service(project.write(tmp_path / "project", files), ledger, failing)
    with serving(service) as client:
        answered = asked(client)
        assert service.process is not None
        assert service.process.wait(20) == -9, "it has killed itself"
        wait_for(lambda: not service.family(), 5, "its code is gone with it")
        service.settings = {}
        service.start()
        service.wait_ready()
        run = asked(client)
        assert run is not None and answered in (None, run), "the same key is the same run"
        assert ended(client, run)["status"] == "completed"
        assert len(client.get("/pipeline_runs").json()["items"]) == 1
    assert invariants_of(f"sqlite:///{service.home / 'runwright.db'}") == []
    lines = read_ledger(ledger)
    assert not [line for line in lines if line["kind"] == "overlap"]
    assert {line["block"] for line in lines if line["kind"] == "end"} == {"a", "b"}


def asked(client: httpx.Client) -> int | None:
    try:
        answer = client.post("/pipelines/steps/pipeline_runs", headers={"Idempotency-Key": "one"})
    except httpx.HTTPError:
        return None
    return int(answer.json()["id"])
