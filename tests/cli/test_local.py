"""The commands that need no service: init, db, keys. And a start that keeps the triggers still."""

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import httpx
import pytest
import yaml

from app.cli.exits import code_of
from app.cli.service import Service, find_service
from app.client.faults import error_of
from app.store.migrate import HEAD
from tests.api.conftest import app_on, serving
from tests.cli.conftest import Invoke
from tests.cli.test_start import service

ONCE = "triggers: [{name: once, schedule_type: time, schedule_interval: '@once', status: active}]\n"


def test_init_makes_a_project_that_is_valid_and_runs(invoke: Invoke, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "project"
    code, out, _ = invoke("init", folder)
    assert code == 0 and f"runwright run {folder} example" in out
    assert invoke("validate", folder)[:2] == (0, "valid (pipelines: 1, triggers: 1)\n")
    triggers = yaml.safe_load((folder / "pipelines/example/triggers.yaml").read_text())["triggers"]
    assert [trigger["status"] for trigger in triggers] == ["inactive"]  # nothing runs that nobody asked for
    for variables in ("{}", '{"top": 1}'):
        code, out, errors = invoke("run", folder, "example", "--runtime-vars", variables)
        assert code == 0, errors
        assert "report | the: 3" in out


def test_init_leaves_what_is_there_alone(invoke: Invoke, project: Path, tmp_path: Path) -> None:
    before = sorted(project.rglob("*"))
    code, _, errors = invoke("init", project)
    assert code == 5 and "not an empty folder" in errors
    assert sorted(project.rglob("*")) == before
    (tmp_path / "empty").mkdir()
    assert invoke("init", tmp_path / "empty")[0] == 0


def test_db_check_and_upgrade(invoke: Invoke, project: Path) -> None:
    code, out, _ = invoke("db", "check", project)
    assert code == 1 and "not there yet" in out
    assert not (project / ".runwright").exists()
    code, out, _ = invoke("db", "upgrade", project)
    assert code == 0 and out.endswith(f"schema {HEAD}, upgraded from empty\n")
    assert invoke("db", "check", project)[0] == 0
    assert invoke("db", "upgrade", project)[:2] == (0, out.replace("upgraded from empty", "current"))
    with closing(sqlite3.connect(project / ".runwright" / "runwright.db")) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
        database.commit()
    for command in ("check", "upgrade"):
        code, _, errors = invoke("db", command, project)
        assert code == 78 and "9999" in errors


def test_keys_are_long_and_never_the_same(invoke: Invoke) -> None:
    made = {invoke("keys", "generate")[1] for _ in range(3)}
    assert len(made) == 3
    assert all(re.fullmatch(r"rw_[A-Za-z0-9_-]{43}\n", key) for key in made)


async def launched_and_due(
    project: Path, *, paused: bool
) -> tuple[list[str], httpx.Response, httpx.Response]:
    """Serve the project, launch a run: the causes of all its runs, its triggers, its health."""
    async with serving(app_on(project, paused=paused)) as client:
        start = {"Prefer": "wait=30"}
        assert (await client.post("/api/v1/pipelines/hello/pipeline_runs", headers=start)).json()[
            "status"
        ] == ("completed")
        runs = (await client.get("/api/v1/pipeline_runs")).json()["items"]
        triggers = await client.get("/api/v1/pipeline_schedules")
        return sorted(run["cause"] for run in runs), triggers, await client.get("/health")


async def test_paused_keeps_triggers_still_and_runs_what_is_launched(project: Path) -> None:
    (project / "pipelines/hello/triggers.yaml").write_text(ONCE)
    causes, triggers, health = await launched_and_due(project, paused=True)
    assert causes == ["api"]
    (once,) = triggers.json()["items"]
    assert (once["name"], once["status"]) == ("once", "active")
    told = health.json()
    assert (told["paused"], told["last_tick_at"], told["scheduler_lag_s"]) == (True, None, 0)
    causes, _, health = await launched_and_due(project, paused=False)
    assert causes == ["api", "api", "tick"]  # it was due all the time
    assert health.json()["paused"] is False


def test_a_first_start_says_what_will_run_here(project: Path) -> None:
    for options, first in (([], True), (["--paused"], False)):
        with service(project, *options) as (going, _):
            going.terminate()
            _, log = going.communicate(timeout=30)
        assert "1 active, 1 with an error" in log and "next: hello/yearly at " in log
        assert ("first    start of this project" in log) is first
        assert ("paused   no trigger fires here" in log) is not first


def test_json_is_for_programs(invoke: Invoke, project: Path) -> None:
    code, out, _ = invoke("cron", "explain", "@daily", "--count", "1", "-o", "json")
    assert code == 0 and set(json.loads(out)[0]) == {"local", "utc", "notes"}
    code, _, errors = invoke("cron", "explain", "@daily", "-o", "yaml")
    assert code == 2 and "table or json" in errors


def test_who_knows_the_key_of_a_service_here_need_not_name_it_twice(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RUNWRIGHT_URL", "RUNWRIGHT_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    home = project / ".runwright"
    home.mkdir()
    (home / "service.json").write_text('{"url": "http://127.0.0.1:7"}')
    assert find_service(str(project)) == Service("http://127.0.0.1:7", None)
    monkeypatch.setenv("RUNWRIGHT_ADMIN_KEY", "k" * 32)
    assert find_service(str(project)) == Service("http://127.0.0.1:7", "k" * 32)
    assert find_service("http://elsewhere") == Service("http://elsewhere", None)  # the key stays at home
    monkeypatch.setenv("RUNWRIGHT_API_KEY", "mine")
    assert find_service(str(project)).key is None


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, 2),
        (401, 4),
        (403, 4),
        (404, 3),
        (409, 5),
        (412, 5),
        (422, 2),
        (502, 7),
        (503, 7),
        (504, 7),
        (500, 1),
    ],
)
def test_an_answer_of_a_service_is_an_exit_code(status: int, code: int) -> None:
    answer = httpx.Response(status, request=httpx.Request("GET", "http://localhost/x"))
    assert code_of(error_of(answer)) == code
