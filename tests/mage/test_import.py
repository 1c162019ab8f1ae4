"""`runwright import-mage` from a database as Mage leaves it into the project's, and what comes of it."""

import asyncio
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from app.cli.import_mage import Wishes, import_from_mage
from app.models.rows import ScheduleRow
from app.models.states import ScheduleStatus, ScheduleType
from app.store import limits, schedules
from app.store.db import Tx
from app.store.opening import open_database
from app.store.sqlite import take_lock
from tests.api.conftest import app_on, serving
from tests.cli.conftest import Invoke
from tests.mage.conftest import add_pipeline
from tests.mage.database import Mage

OLD_PATH = "/home/src/shop"
Report = dict[tuple[str, int], dict[str, Any]]


def everything(mage: Mage) -> None:
    """What a project has gathered after some years."""
    mage.trigger(
        *(1, "nightly", "TIME"),
        schedule_interval="@daily",
        description="Ask the CRM",
        start_time=mage.time("2023-05-01 06:30:00.000000"),
        variables={"env": "prod", "top": 5},
        sla=3600,
        settings={"allow_blocks_to_fail": True, "skip_if_previous_running": False, "timeout": "90"},
        repo_path=OLD_PATH,
    )
    mage.trigger(2, "weekly", "TIME", schedule_interval="@weekly", status="INACTIVE")
    mage.trigger(3, "from CRM", "API", repo_path=OLD_PATH, variables={"who": "crm"})
    mage.trigger(4, "from CRM", "API", settings={"skip_if_previous_running": True})
    mage.trigger(5, "on upload", "EVENT")
    mage.trigger(6, "landing", "TIME", schedule_interval="@hourly", settings={"landing_time_enabled": True})
    mage.trigger(7, "Backfill may", None, schedule_interval="@once")
    mage.trigger(8, "other", "API", repo_path="/home/src/other_project")
    mage.trigger(9, "orphan", "API", pipeline_uuid="deleted_long_ago")
    mage.trigger(10, "bad cron", "TIME", schedule_interval="61 * * * *")
    mage.trigger(11, "run once", "TIME", schedule_interval="@once")
    mage.trigger(12, "limited", "TIME", schedule_interval="0 * * * *", settings={"pipeline_run_limit": 2})
    mage.trigger(13, "filed", "API")
    mage.trigger(14, "unknown setting", "TIME", schedule_interval="@daily", settings={"retries": 3})
    mage.trigger(15, "product", "TIME", schedule_interval="@once", global_data_product_uuid="p")
    mage.trigger(16, "asleep", "API", status="INACTIVE")
    mage.trigger(40, "Backfill june", "TIME", schedule_interval="@once")
    mage.insert("backfill", name="june", pipeline_uuid="etl", pipeline_schedule_id=40)
    mage.insert("pipeline_run", pipeline_schedule_id=11, pipeline_uuid="etl")
    mage.tag(1, "finance", 1, 13)
    mage.tag(2, "daily", 1)
    mage.matcher(1, "s3", {"source": ["aws.s3"]}, 5)
    mage.matcher(2, "unused", {})


@pytest.fixture
def filed(root: Path) -> None:
    """One of the triggers is in triggers.yaml as well, and there differs."""
    triggers = "triggers:\n- {name: filed, schedule_type: api, status: active, variables: {by: file}}\n"
    add_pipeline(root, "etl", triggers=triggers)


def run(invoke: Invoke, root: Path, mage: Mage, *more: str) -> tuple[int, Report, str]:
    """The command; its exit code, its report by kind and id, and what it said besides."""
    arguments = ("--database-url", mage.url, "--repo-path", OLD_PATH, "-o", "json", *more)
    code, out, said = invoke("import-mage", root, *arguments)
    return code, {(line["kind"], line["id"]): line for line in json.loads(out)}, said


def results(report: Report) -> dict[int, str]:
    return {id: line["result"] for (kind, id), line in report.items() if kind == "trigger"}


def look(url: str, fn: Callable[..., Any] = schedules.live) -> Any:
    async def read() -> Any:
        database = open_database(url, exclusive=False)
        await database.open()
        try:
            return await database.read(fn)
        finally:
            await database.close()

    return asyncio.run(read())


def rows(url: str) -> dict[int, ScheduleRow]:
    return {row.id: row for row, _digest, _token in look(url)}


@pytest.mark.usefixtures("filed")
def test_every_row_is_taken_changed_refused_or_skipped_with_a_reason(
    invoke: Invoke, root: Path, mage: Mage, database_url: str
) -> None:
    everything(mage)
    code, report, said = run(invoke, root, mage, "--into", database_url)
    assert code == 1, "something was refused"
    assert results(report) == {
        **{1: "taken", 2: "changed", 3: "taken", 4: "changed", 5: "refused", 6: "changed", 7: "skipped"},
        **{8: "skipped", 9: "refused", 10: "changed", 11: "changed", 12: "changed", 13: "taken"},
        **{14: "changed", 15: "refused", 16: "taken", 40: "skipped"},
    }
    for id, words in {
        2: "'0 0 * * 1'",
        4: "named 'from CRM (4)'; skip_if_previous_running left out",
        5: "event triggers do not run yet",
        6: "inactive: landing_time_enabled left out",
        8: "/home/src/other_project",
        9: "no pipeline 'deleted_long_ago'",
        11: "inactive: it has had its one run",
        12: "on_pipeline_run_limit_reached: wait",
        13: "tags that are in Mage's database only: finance",
        14: "unknown setting 'retries'",
        16: "answered 404",
        40: "backfill 'june'",
    }.items():
        assert words in report["trigger", id]["why"], id
    assert (
        report["event matcher", 1]["result"] == "refused" and "trigger 5" in report["event matcher", 1]["why"]
    )
    assert report["event matcher", 2]["result"] == "skipped"
    assert "4 refused" in said and "Mage's scheduler must be stopped" in said


@pytest.mark.usefixtures("filed")
def test_triggers_are_what_they_were_in_mage(
    invoke: Invoke, root: Path, mage: Mage, database_url: str
) -> None:
    everything(mage)
    run(invoke, root, mage, "--into", database_url)
    found = rows(database_url)
    assert set(found) == {1, 2, 3, 4, 6, 10, 11, 12, 13, 14, 16}
    nightly = found[1]
    assert (nightly.name, nightly.pipeline_uuid, nightly.description) == ("nightly", "etl", "Ask the CRM")
    assert (nightly.schedule_type, nightly.status) == (ScheduleType.TIME, ScheduleStatus.ACTIVE)
    assert (nightly.schedule_interval, nightly.timezone, nightly.sla) == ("@daily", "UTC", 3600)
    assert nightly.start_time is not None and nightly.start_time.isoformat() == "2023-05-01T06:30:00+00:00"
    assert nightly.variables == {"env": "prod", "top": 5} and nightly.tags == ("daily", "finance")
    assert nightly.settings == {"allow_blocks_to_fail": True, "timeout": 90}
    assert nightly.next_fire_at is not None and nightly.cursor_at is not None
    assert nightly.next_fire_at > nightly.cursor_at, "nothing of the past is due"
    assert found[12].settings == {"pipeline_run_limit": 2, "on_pipeline_run_limit_reached": "wait"}
    assert look(database_url, lambda tx: limits.limits(tx, "schedule:")) == {"schedule:12": 2}
    asleep = {id for id, row in found.items() if row.status is ScheduleStatus.INACTIVE}
    assert asleep == {2, 6, 10, 11, 14, 16}
    assert "61" in (found[10].error or "") and found[10].schedule_interval == "61 * * * *"
    assert (found[13].managed_by, found[13].variables) == ("file", {"by": "file"})
    assert {row.managed_by for id, row in found.items() if id != 13} == {"api"}


@pytest.mark.usefixtures("filed")
def test_a_second_import_changes_nothing_and_says_so(
    invoke: Invoke, root: Path, mage: Mage, database_url: str
) -> None:
    everything(mage)
    _, first, _ = run(invoke, root, mage, "--into", database_url)
    before = look(database_url)
    _, second, said = run(invoke, root, mage, "--into", database_url)
    assert look(database_url) == before
    expected = {
        id: "unchanged" if result in ("taken", "changed") else result for id, result in results(first).items()
    }
    assert results(second) == expected
    assert said.startswith("Nothing to do:") and "11 unchanged" in said


@pytest.mark.usefixtures("filed")
def test_a_dry_run_reports_the_same_and_makes_nothing(invoke: Invoke, root: Path, mage_sqlite: Mage) -> None:
    everything(mage_sqlite)
    _, dry, said = run(invoke, root, mage_sqlite, "--dry-run")
    assert said.startswith("It would be:") and not (root / ".runwright").exists()
    _, real, _ = run(invoke, root, mage_sqlite)
    assert dry == real
    _, again, _ = run(invoke, root, mage_sqlite, "--dry-run")
    assert again == run(invoke, root, mage_sqlite)[1]


async def test_a_call_with_the_old_url_starts_a_run(root: Path, mage_sqlite: Mage) -> None:
    everything(mage_sqlite)
    add_pipeline(root, "etl", triggers="triggers:\n- {name: filed, schedule_type: api, status: active}\n")
    wishes = Wishes(repo_path=OLD_PATH)
    await asyncio.to_thread(import_from_mage, root, mage_sqlite.url, wishes, "json")
    async with serving(app_on(root)) as client:
        for id, variables in ((3, {"who": "crm"}), (4, {}), (13, {})):
            answer = await client.post(f"/api/pipeline_schedules/{id}/pipeline_runs/{id:032x}")
            assert answer.status_code == 200, answer.text
            run = (await client.get(f"/api/v1/pipeline_runs/{answer.json()['pipeline_run']['id']}")).json()
            assert (run["pipeline_schedule_id"], run["pipeline_uuid"]) == (id, "etl")
            assert run["variables"] == variables
        wrong = await client.post(f"/api/pipeline_schedules/3/pipeline_runs/{4:032x}")
        assert wrong.status_code == 404
        bearer = {"Authorization": f"Bearer {3:032x}"}
        answer = await client.post("/api/pipeline_schedules/3/api_trigger", headers=bearer)
        assert answer.status_code == 200, answer.text
        draft = {"pipeline_uuid": "etl", "name": "new", "schedule_type": "api"}
        made = await client.post("/api/v1/pipeline_schedules", json=draft)
        assert made.status_code == 201 and made.json()["id"] > 40, "ids of Mage are not given out again"


def test_a_service_that_serves_the_database_is_in_the_way(
    invoke: Invoke, root: Path, mage_sqlite: Mage
) -> None:
    mage_sqlite.trigger(1, "t", "API")
    with take_lock(root / ".runwright" / "runwright.db"):
        code, out, said = invoke("import-mage", root, "--database-url", mage_sqlite.url)
        assert (code, out) == (78, "") and "already serves" in said and "Stop it first" in said
        code, _, _ = run(invoke, root, mage_sqlite, "--dry-run")
        assert code == 0


def test_mages_database_is_only_read(invoke: Invoke, root: Path, mage: Mage) -> None:
    everything(mage)
    if mage.url.startswith("sqlite"):
        file = Path(mage.url.removeprefix("sqlite:///"))
        before = file.read_bytes()
        file.chmod(0o444)
        run(invoke, root, mage)
        assert file.read_bytes() == before
        assert [path.name for path in file.parent.iterdir() if path.name.startswith("mage-ai.db-")] == []
    else:
        dump = "SELECT json_agg(s ORDER BY id) FROM pipeline_schedule s"
        before_rows = mage.sql(dump)
        run(invoke, root, mage)
        assert mage.sql(dump) == before_rows


def test_an_older_mage_without_later_columns_is_read(invoke: Invoke, root: Path, tmp_path: Path) -> None:
    file = tmp_path / "old.db"
    with closing(sqlite3.connect(file)) as database, database:
        database.execute(
            "CREATE TABLE pipeline_schedule (id INTEGER PRIMARY KEY, name TEXT, pipeline_uuid TEXT,"
            " schedule_type TEXT, start_time DATETIME, schedule_interval TEXT, status TEXT)"
        )
        database.execute(
            "INSERT INTO pipeline_schedule VALUES (1, 'a', 'etl', 'time', NULL, '@daily', 'active')"
        )
    code, out, _ = invoke("import-mage", root, "--database-url", f"sqlite:///{file}", "-o", "json")
    assert code == 0 and [line["result"] for line in json.loads(out)] == ["taken"]


@pytest.mark.parametrize(
    ("url", "code", "words"),
    [
        ("sqlite:///{tmp}/nothing.db", 3, "no database file"),
        ("sqlite:///{tmp}/empty.db", 2, "no database of Mage"),
        ("sqlite:///{tmp}/text.db", 7, "file is not a database"),
        ("no url", 2, "no URL"),
        ("mssql://somewhere/mage", 78, "not supported"),
    ],
)
def test_what_is_no_database_of_mage_is_refused(
    invoke: Invoke, root: Path, tmp_path: Path, url: str, code: int, words: str
) -> None:
    sqlite3.connect(tmp_path / "empty.db").close()
    (tmp_path / "text.db").write_text("this is no database, but it is long enough to be looked at" * 30)
    found, _, said = invoke("import-mage", root, "--database-url", url.format(tmp=tmp_path))
    assert found == code and words in said, said


def test_our_own_database_is_not_mistaken_for_mages(invoke: Invoke, root: Path, postgres_url: str) -> None:
    code, _, said = invoke("import-mage", root, "--database-url", postgres_url)
    assert code == 2 and "database of Runwright" in said


def test_a_url_as_mage_writes_it_is_understood(invoke: Invoke, root: Path, mage_postgresql: Mage) -> None:
    mage = mage_postgresql
    mage.sql("CREATE SCHEMA orchestration; ALTER TABLE pipeline_schedule SET SCHEMA orchestration;")
    mage.sql(
        "INSERT INTO orchestration.pipeline_schedule (id, name, pipeline_uuid, schedule_type, status)"
        " VALUES (7, 'x', 'etl', 'API', 'ACTIVE')"
    )
    url = mage.url.replace("postgresql://", "postgresql+psycopg2://")
    url += "&sslmode=disable&connect_timeout=3&options=-csearch_path%3Dorchestration"
    code, out, said = invoke("import-mage", root, "--database-url", url, "-o", "json")
    assert code == 0 and [line["id"] for line in json.loads(out)] == [7], said


def test_ids_are_kept_clear(invoke: Invoke, root: Path, mage_sqlite: Mage, sqlite_url: str) -> None:
    mage_sqlite.trigger(5000, "late", "EVENT")
    run(invoke, root, mage_sqlite, "--into", sqlite_url)

    def next_id(tx: Tx) -> int:
        from app.store.sql import ID_BLOCK

        return tx.execute(ID_BLOCK.select().where(ID_BLOCK.c.name == "pipeline_schedule")).one().next_id

    assert look(sqlite_url, next_id) == 5001, "also those of triggers that were refused"
