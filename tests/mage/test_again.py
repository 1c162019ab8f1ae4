"""An import into a database that knows triggers already: repeated, after edits on either side, after a first start."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.cli.import_mage import Wishes, import_from_mage
from app.models.states import ScheduleStatus
from app.store import limits
from app.store.opening import open_database
from tests.api.conftest import app_on, serving
from tests.cli.conftest import Invoke
from tests.invariants import assert_hold
from tests.mage.conftest import add_pipeline
from tests.mage.database import Mage
from tests.mage.test_import import Report, look, results, rows, run

FILE = """
triggers:
- {name: a, schedule_type: api, status: active}
- {name: b, schedule_type: time, schedule_interval: '@daily', status: inactive, settings: {pipeline_run_limit: 3}}
"""


async def _served(root: Path, url: str, *requests: tuple[str, str, dict[str, Any]]) -> list[httpx.Response]:
    async with serving(app_on(root, database_url=url)) as client:
        return [
            await client.request(method, f"/api/v1{path}", json=body, headers={"Prefer": "wait=30"})
            for method, path, body in requests
        ]


def serve(root: Path, url: str, *requests: tuple[str, str, dict[str, Any]]) -> list[httpx.Response]:
    """Start the service, ask it something, stop it."""
    answers = asyncio.run(_served(root, url, *requests))
    assert all(answer.is_success for answer in answers), [answer.text for answer in answers]
    return answers


def test_what_changed_in_mage_comes_along(
    invoke: Invoke, root: Path, mage_sqlite: Mage, database_url: str
) -> None:
    mage_sqlite.trigger(1, "t", "TIME", schedule_interval="@daily")
    mage_sqlite.trigger(2, "u", "API")
    run(invoke, root, mage_sqlite, "--into", database_url)
    mage_sqlite.sql("UPDATE pipeline_schedule SET schedule_interval = '@hourly', name = 'often' WHERE id = 1")
    _, report, _ = run(invoke, root, mage_sqlite, "--into", database_url)
    assert results(report) == {1: "changed", 2: "unchanged"}
    assert report["trigger", 1]["why"] == "changed in Mage since the last import"
    found = rows(database_url)[1]
    assert (found.name, found.schedule_interval, found.revision) == ("often", "@hourly", 2)
    _, report, _ = run(invoke, root, mage_sqlite, "--into", database_url)
    assert results(report) == {1: "unchanged", 2: "unchanged"}


def test_what_changed_here_stays(invoke: Invoke, root: Path, mage_sqlite: Mage, sqlite_url: str) -> None:
    for id, name in enumerate(("paused", "renamed", "deleted", "both"), 1):
        mage_sqlite.trigger(id, name, "API")
    run(invoke, root, mage_sqlite, "--into", sqlite_url)
    at = "/pipeline_schedules"
    serve(
        root,
        sqlite_url,
        ("POST", f"{at}/1/pause", {}),
        ("PATCH", f"{at}/2", {"name": "of our own"}),
        ("DELETE", f"{at}/3", {}),
        ("POST", f"{at}/4/pause", {}),
    )
    mage_sqlite.sql("UPDATE pipeline_schedule SET description = 'new' WHERE id = 4")
    code, report, _ = run(invoke, root, mage_sqlite, "--into", sqlite_url)
    assert results(report) == {1: "unchanged", 2: "unchanged", 3: "unchanged", 4: "refused"} and code == 1
    assert "deleted here" in report["trigger", 3]["why"]
    assert "changed in Mage and here" in report["trigger", 4]["why"]
    found = rows(sqlite_url)
    assert set(found) == {1, 2, 4} and found[2].name == "of our own" and found[4].description is None
    assert found[1].status is found[4].status is ScheduleStatus.INACTIVE


def test_a_rotated_token_is_not_brought_back(
    invoke: Invoke, root: Path, mage_sqlite: Mage, sqlite_url: str
) -> None:
    mage_sqlite.trigger(1, "t", "API")
    run(invoke, root, mage_sqlite, "--into", sqlite_url)
    (answer,) = serve(root, sqlite_url, ("POST", "/pipeline_schedules/1/rotate_token", {}))
    mage_sqlite.sql("UPDATE pipeline_schedule SET description = 'new'")
    _, report, _ = run(invoke, root, mage_sqlite, "--into", sqlite_url)
    assert "another token here, which stays" in report["trigger", 1]["why"]
    assert rows(sqlite_url)[1].description == "new"
    assert called(root, sqlite_url, 1, answer.json()["token"]) == 200
    assert called(root, sqlite_url, 1, f"{1:032x}") == 404


def called(root: Path, url: str, id: int, token: str) -> int:
    """The answer to a call as callers of Mage make it."""

    async def call() -> int:
        async with serving(app_on(root, database_url=url)) as client:
            return (await client.post(f"/api/pipeline_schedules/{id}/pipeline_runs/{token}")).status_code

    return asyncio.run(call())


def imported_after_a_start(invoke: Invoke, root: Path, mage: Mage, url: str, *requests: Any) -> Report:
    """The service has read triggers.yaml before: a is 1, b is 2. In Mage it is the other way round."""
    add_pipeline(root, "etl", triggers=FILE)
    serve(root, url, *requests)
    assert {row.name: id for id, row in rows(url).items()}.items() >= {("a", 1), ("b", 2)}
    mage.trigger(1, "b", "TIME", schedule_interval="@daily", status="INACTIVE")
    mage.trigger(2, "a", "API")
    return run(invoke, root, mage, "--into", url)[1]


def test_triggers_of_files_get_the_ids_of_mage_after_a_first_start(
    invoke: Invoke, root: Path, mage_sqlite: Mage, database_url: str
) -> None:
    report = imported_after_a_start(invoke, root, mage_sqlite, database_url)
    assert results(report) == {1: "changed", 2: "changed"}
    assert report["trigger", 2]["why"].startswith("was trigger 1 here")
    assert {row.name: id for id, row in rows(database_url).items()} == {"b": 1, "a": 2}
    assert called(root, database_url, 2, f"{2:032x}") == 200
    before = rows(database_url)
    _, report, said = run(invoke, root, mage_sqlite, "--into", database_url)
    assert said.startswith("Nothing to do") and rows(database_url) == before
    asyncio.run(_hold(database_url))
    found = look(database_url, lambda tx: limits.limits(tx, "schedule:"))
    assert found == {"schedule:1": 3}, "the limit of b has come with it"


async def _hold(url: str) -> None:
    database = open_database(url)
    await database.open()
    try:
        await assert_hold(database)
    finally:
        await database.close()


def test_an_id_with_a_history_is_not_taken_from_its_trigger(
    invoke: Invoke, root: Path, mage_sqlite: Mage, sqlite_url: str
) -> None:
    fired = ("POST", "/pipeline_schedules/1/pipeline_runs", {})
    report = imported_after_a_start(invoke, root, mage_sqlite, sqlite_url, fired)
    assert results(report) == {1: "refused", 2: "refused"}
    assert "its id is that of the trigger 'a'" in report["trigger", 1]["why"]
    assert "callers must use that id" in report["trigger", 2]["why"]
    assert {row.name: id for id, row in rows(sqlite_url).items()} == {"a": 1, "b": 2}


def test_a_trigger_of_a_file_makes_room_if_nobody_can_have_referred_to_it(
    invoke: Invoke, root: Path, mage_sqlite: Mage, sqlite_url: str
) -> None:
    add_pipeline(root, "etl", triggers=FILE)
    serve(root, sqlite_url)
    mage_sqlite.trigger(1, "c", "API")
    _, dry, _ = run(invoke, root, mage_sqlite, "--into", sqlite_url, "--dry-run")
    _, report, _ = run(invoke, root, mage_sqlite, "--into", sqlite_url)
    assert results(report) == results(dry) == {1: "taken", 3: "changed"}
    assert "was trigger 1 here" in report["trigger", 3]["why"]
    assert {row.name: id for id, row in rows(sqlite_url).items()} == {"c": 1, "b": 2, "a": 3}


def test_an_imported_trigger_that_is_saved_in_a_file_stays_the_same_one(
    invoke: Invoke, root: Path, mage_sqlite: Mage, database_url: str
) -> None:
    mage_sqlite.trigger(7, "a", "API")
    run(invoke, root, mage_sqlite, "--into", database_url)
    add_pipeline(root, "etl", triggers=FILE)
    assert called(root, database_url, 7, f"{7:032x}") == 200
    assert rows(database_url)[7].managed_by == "file"
    _, report, _ = run(invoke, root, mage_sqlite, "--into", database_url)
    assert results(report) == {7: "unchanged"}


async def test_on_postgres_an_import_works_beside_a_running_service(
    root: Path, mage_sqlite: Mage, postgres_url: str
) -> None:
    mage_sqlite.trigger(1, "from CRM", "API")
    mage_sqlite.trigger(2, "often", "TIME", schedule_interval="* * * * * *")
    wishes = Wishes(into=postgres_url)
    async with serving(app_on(root, database_url=postgres_url)) as client:
        code = await asyncio.to_thread(import_from_mage, root, mage_sqlite.url, wishes, "json")
        assert code == 0
        answer = await client.post(f"/api/pipeline_schedules/1/pipeline_runs/{1:032x}")
        assert answer.status_code == 200, answer.text
        async with asyncio.timeout(20):
            while not (await client.get("/api/v1/pipeline_schedules/2/slots")).json()["items"]:
                await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"variables": [1]}, "its variables are no JSON object"),
        ({"variables": {"x": "\ud800"}}, "cannot be stored"),
        ({"variables": {"x": "y" * 70_000}}, "at most 65536"),
        ({"variables": "{"}, "variables is not JSON"),
        ({"start_time": "soon"}, "start_time 'soon' is no time"),
    ],
)
def test_what_cannot_be_kept_is_refused_alone(
    invoke: Invoke, root: Path, mage_sqlite: Mage, values: dict[str, Any], words: str
) -> None:
    mage_sqlite.trigger(1, "bad", "API", **values)
    mage_sqlite.trigger(2, "good", "API")
    code, report, _ = run(invoke, root, mage_sqlite)
    assert code == 1 and results(report) == {1: "refused", 2: "taken"}
    assert words in report["trigger", 1]["why"]


def test_names_that_are_no_names_here_are_changed(invoke: Invoke, root: Path, mage_sqlite: Mage) -> None:
    for id, name in enumerate(("  spaces ", "!!!", "spaces", "x" * 300, ""), 1):
        mage_sqlite.trigger(id, name, "API")
    _, report, _ = run(invoke, root, mage_sqlite)
    found = {id: row.name for id, row in rows(f"sqlite:///{root}/.runwright/runwright.db").items()}
    assert found == {1: "spaces", 2: "trigger 2", 3: "spaces (3)", 4: "x" * 255, 5: "trigger 5"}
    assert set(results(report).values()) == {"changed"}


def test_a_token_too_short_to_be_safe_is_left_out(invoke: Invoke, root: Path, mage_sqlite: Mage) -> None:
    mage_sqlite.trigger(1, "t", "API", token="secret")
    code, report, _ = run(invoke, root, mage_sqlite)
    assert code == 0 and report["trigger", 1]["result"] == "changed"
    assert "token left out" in report["trigger", 1]["why"]
