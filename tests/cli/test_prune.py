"""`runwright db prune`: what would go is said beside a service, and goes when none runs."""

import asyncio
import json
from pathlib import Path

from tests.api.conftest import app_on, serving
from tests.cli.conftest import Invoke

KEEP = {"RUNWRIGHT_KEEP_RUNS_PER_PIPELINE": "1"}


async def three_runs(project: Path) -> None:
    async with serving(app_on(project)) as client:
        for _ in range(3):
            answer = await client.post("/api/v1/pipelines/hello/pipeline_runs", headers={"Prefer": "wait=30"})
            assert answer.json()["status"] == "completed"


def test_what_would_go_is_said_and_then_goes(invoke: Invoke, project: Path) -> None:
    assert invoke("db", "prune", project)[0] == 3, "there is no database yet"
    asyncio.run(three_runs(project))
    code, out, errors = invoke("db", "prune", project, "--dry-run", "-o", "json", **KEEP)
    assert code == 0, errors
    (found,) = json.loads(out)["pipelines"]
    assert (found["pipeline_uuid"], found["runs"], found["block_runs"]) == ("hello", 2, 4)
    assert found["log_bytes"] > 100 and json.loads(out)["slots"] == 0
    assert "no run is past its time" in invoke("db", "prune", project, "--dry-run")[1]

    code, out, errors = invoke("db", "prune", project, "-o", "json", **KEEP)
    assert code == 0, errors
    done = json.loads(out)
    assert (done["runs"], done["folders"]) == (2, 2)
    assert json.loads(invoke("db", "prune", project, "-o", "json", **KEEP)[1])["runs"] == 0
    assert invoke("db", "check", project, "--invariants")[0] == 0


async def test_beside_a_service_on_sqlite_only_the_look_is_allowed(invoke: Invoke, project: Path) -> None:
    async with serving(app_on(project)):
        assert (await asyncio.to_thread(invoke, "db", "prune", project, "--dry-run"))[0] == 0
        code, _, errors = await asyncio.to_thread(invoke, "db", "prune", project)
        assert code == 78 and "Another service" in errors
