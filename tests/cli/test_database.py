"""`runwright db` as people use it: upgrade, check, backup, restore, beside a service that runs or not."""

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from app.store.migrate import HEAD
from tests.api.conftest import app_on, serving
from tests.cli.conftest import Invoke


def statuses(out: str) -> dict[str, str]:
    return {row["check"]: row["status"] for row in json.loads(out)}


async def one_run(project: Path) -> None:
    async with serving(app_on(project)) as client:
        answer = await client.post("/api/v1/pipelines/hello/pipeline_runs", headers={"Prefer": "wait=30"})
        assert answer.json()["status"] == "completed"


async def test_a_copy_is_taken_beside_the_service_and_served_elsewhere(
    invoke: Invoke, project: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "backups" / "monday.db"
    async with serving(app_on(project)) as client:
        await client.post("/api/v1/pipelines/hello/pipeline_runs", headers={"Prefer": "wait=30"})
        code, out, errors = invoke("db", "backup", copy, project, "--artifacts")
        assert code == 0, errors
        assert f"schema {HEAD}" in out and "block outputs" in out
        code, _, errors = invoke("db", "restore", copy, project, "--force")
        assert code == 78 and "Another service" in errors
        assert invoke("db", "check", project, "--invariants", "-o", "json")[0] == 0

    other = f"sqlite:///{tmp_path / 'other' / 'runwright.db'}"
    code, out, errors = invoke("db", "restore", copy, project, "--database-url", other, "--artifacts")
    assert code == 0, errors
    assert "0 runs were under way" in out and "--paused" in out
    code, out, _ = invoke("db", "check", project, "--database-url", other, "--invariants", "-o", "json")
    assert (code, statuses(out)) == (
        0,
        {"schema": "ok", "integrity": "ok", "references": "ok", "invariants": "ok"},
    )
    async with serving(app_on(project, database_url=other)) as client:
        runs = (await client.get("/api/v1/pipeline_runs")).json()["items"]
        assert [run["status"] for run in runs] == ["completed"]


def test_what_is_there_is_kept_until_it_is_forced(invoke: Invoke, project: Path, tmp_path: Path) -> None:
    asyncio.run(one_run(project))
    copy = tmp_path / "copy.db"
    assert invoke("db", "backup", copy, project)[0] == 0
    assert invoke("db", "backup", copy, project)[0] == 5
    assert invoke("db", "backup", copy, project, "--force")[0] == 0
    code, _, errors = invoke("db", "restore", copy, project)
    assert code == 5 and "--force" in errors
    code, out, _ = invoke("db", "restore", copy, project, "--force")
    assert code == 0 and "what was there is" in out
    code, _, errors = invoke("db", "restore", project / "metadata.yaml", project, "--force")
    assert code == 2 and "no backup" in errors


def test_damage_is_told_and_not_touched(invoke: Invoke, project: Path) -> None:
    asyncio.run(one_run(project))
    path = project / ".runwright" / "runwright.db"
    with path.open("r+b") as file:
        file.seek(2 * 4096)
        file.write(b"\xa5" * 3 * 4096)
    damaged = path.read_bytes()
    code, out, _ = invoke("db", "check", project, "-o", "json")
    assert code == 1 and "failed" in statuses(out).values()
    code, _, errors = invoke("start", project, "--port", "0")
    assert code == 78 and "damaged" in errors and "restore" in errors
    code, out, _ = invoke("doctor", project, "-o", "json")
    assert code == 1 and statuses(out)["integrity"] == "failed"
    assert path.read_bytes() == damaged


def test_the_upgrade_says_from_where(invoke: Invoke, project: Path) -> None:
    code, out, _ = invoke("db", "upgrade", project)
    assert code == 0 and out.endswith(f"schema {HEAD}, upgraded from empty\n")
    path = project / ".runwright" / "runwright.db"
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
        raw.commit()
    for command in (["db", "upgrade"], ["db", "check"], ["start", "--port", "0"]):
        code, _, errors = invoke(*command, project)
        assert code == 78 and f"has schema 9999, this program knows {HEAD}" in errors


async def test_a_probe_tells_of_a_database_that_is_gone(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(app_on(project)) as client:
        assert (await client.get("/readyz")).status_code == 200
        home = project / ".runwright"
        home.rename(project / "moved")
        answer = await client.get("/readyz")
        assert answer.status_code == 503 and "database" in answer.json()["detail"]
        refused = await client.post("/api/v1/pipelines/hello/pipeline_runs")
        assert refused.status_code == 503
        assert "removed or replaced" in caplog.text
        assert (await client.get("/livez")).status_code == 200
        (project / "moved").rename(home)
        assert (await client.get("/readyz")).status_code == 200


def test_doctor_looks_into_postgres(invoke: Invoke, project: Path, postgres_url: str) -> None:
    code, out, _ = invoke("doctor", project, "--database-url", postgres_url, "-o", "json")
    found = statuses(out)
    wanted = {"database", "server", "clock", "durability", "connections", "notifications", "pooler", "nodes"}
    assert set(found) >= wanted
    assert {name: found[name] for name in wanted} == dict.fromkeys(wanted, "ok")
    assert code == (1 if found["port"] == "failed" else 0)


FULL = """
import resource

@custom
def hoard(*args, **kwargs):
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # as a full disk, but only for this worker
    return b"x" * 1_000_000
"""


async def test_an_output_that_finds_no_room_fails_its_block_and_the_service_lives(project: Path) -> None:
    (project / "pipelines" / "full").mkdir()
    blocks = "blocks: [{uuid: hoard, type: custom, language: python, upstream_blocks: []}]\n"
    (project / "pipelines" / "full" / "metadata.yaml").write_text(blocks)
    (project / "custom" / "hoard.py").write_text(FULL)
    async with serving(app_on(project)) as client:
        wait = {"Prefer": "wait=30"}
        run = (await client.post("/api/v1/pipelines/full/pipeline_runs", headers=wait)).json()
        assert run["status"] == "failed"
        (block,) = (await client.get(f"/api/v1/pipeline_runs/{run['id']}")).json()["block_runs"]
        assert "cannot be written to" in block["error"]["message"]
        run = (await client.post("/api/v1/pipelines/hello/pipeline_runs", headers=wait)).json()
        assert run["status"] == "completed"
