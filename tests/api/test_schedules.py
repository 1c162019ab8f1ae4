"""Triggers over HTTP: made, looked at, changed with ETags, paused, fired, deleted; the ledger in pages."""

from datetime import timedelta
from typing import Any

import httpx
import pytest

from app import clock
from app.models.columns import from_us, to_us
from app.scheduler.engine import Engine
from app.store.sql import SCHEDULE, SLOT
from tests.api.test_bad_requests import assert_problem
from tests.invariants import assert_hold

pytestmark = pytest.mark.asyncio(loop_scope="module")

URL = "/api/v1/pipeline_schedules"
RUNS = "/api/v1/pipeline_runs"


def engine_of(api: httpx.AsyncClient) -> Engine:
    engine: Engine = api._transport.app.state.engine  # type: ignore[attr-defined]
    return engine


async def make(api: httpx.AsyncClient, name: str, **values: Any) -> dict[str, Any]:
    given = {"name": name, "pipeline_uuid": "hello", "schedule_type": "time", "schedule_interval": "@daily"}
    if values.get("schedule_type") == "api":
        del given["schedule_interval"]
    answer = await api.post(URL, json={**given, **values})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_trigger_is_made_and_read_back(api: httpx.AsyncClient) -> None:
    asked = {
        "name": " nightly ",
        "pipeline_uuid": "hello",
        "schedule_type": "time",
        "schedule_interval": "30 2 * * *",
        "timezone": "Europe/Berlin",
        "status": "active",
        "start_time": "2026-01-31T08:00:00+01:00",
        "description": "every night",
        "variables": {"name": "ada", "deep": [1, {"a": None}]},
        "settings": {"pipeline_run_limit": 2, "timeout": 60, "on_pipeline_run_limit_reached": "wait"},
        "tags": ["a", "b"],
    }
    answer = await api.post(URL, json=asked)
    made = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"{URL}/{made['id']}"
    assert answer.headers["etag"] == '"1"'
    expected = {**asked, "name": "nightly", "start_time": "2026-01-31T07:00:00Z"}
    assert {name: made[name] for name in asked} == expected
    assert (made["managed_by"], made["revision"], made["error"], made["token"]) == ("api", 1, None, None)
    assert made["next_execution_date"] > made["created_at"]
    one = await api.get(f"{URL}/{made['id']}")
    assert one.headers["etag"] == '"1"'
    assert one.json() == {name: value for name, value in made.items() if name != "token"}


async def test_what_is_left_out_has_the_defaults_of_the_file(api: httpx.AsyncClient) -> None:
    made = await make(api, "plain")
    assert (made["status"], made["timezone"], made["start_time"], made["next_execution_date"]) == (
        "inactive",
        None,
        None,
        None,
    )
    assert (made["variables"], made["settings"], made["tags"], made["sla"]) == ({}, {}, [], None)


async def test_the_list_is_filtered(api: httpx.AsyncClient) -> None:
    one = await make(api, "listed", schedule_type="api", status="active")
    for filters in ({"name": "listed"}, {"schedule_type": "api", "status": "active"}):
        page = (await api.get(URL, params={"pipeline_uuid": "hello", **filters})).json()
        assert [row["id"] for row in page["items"]] == [one["id"]]
    page = (await api.get(URL, params={"schedule_type": "event"})).json()
    assert page["items"] == []


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no name": ({"name": None}, "/name"),
    "nothing in the name": ({"name": "--"}, "/name"),
    "event": ({"schedule_type": "event"}, "/schedule_type"),
    "no interval": ({"schedule_interval": None}, "/schedule_interval"),
    "no cron": ({"schedule_interval": "61 * * * *"}, "/schedule_interval"),
    "a long interval": ({"schedule_interval": "1," * 200}, "/schedule_interval"),
    "no zone": ({"timezone": "Mars/Olympus"}, "/timezone"),
    "naive start": ({"start_time": "2026-01-31T08:00:00"}, "/start_time"),
    "an sla that is none": ({"sla": -60}, "/sla"),
    "event matchers": ({"event_matchers": []}, "/event_matchers"),
    "a token of one's own": ({"token": "x" * 40}, "/token"),
    "unknown setting": ({"settings": {"retries": 1}}, "/settings/retries"),
    "a policy that is none": ({"settings": {"catch_up": "some"}}, "/settings/catch_up"),
    "a blackout that is none": (
        {"settings": {"blackouts": [{"weekdays": ["funday"]}]}},
        "/settings/blackouts",
    ),
    "setting of the wrong type": (
        {"settings": {"skip_if_previous_running": "yes"}},
        "/settings/skip_if_previous_running",
    ),
    "settings no object": ({"settings": []}, "/settings"),
    "unknown pipeline": ({"pipeline_uuid": "nope"}, "/pipeline_uuid"),
    "traversal": ({"pipeline_uuid": "../hello"}, "/pipeline_uuid"),
    "large variables": ({"variables": {"a": "x" * 70_000}}, "/variables"),
    "a tag that is none": ({"tags": [""]}, "/tags/0"),
    "many tags": ({"tags": ["t"] * 101}, "/tags"),
    "status of a run": ({"status": "running"}, "/status"),
}


@pytest.mark.parametrize(("fault", "pointer"), BAD.values(), ids=BAD)
async def test_a_bad_trigger_is_a_problem_and_makes_nothing(
    api: httpx.AsyncClient, fault: dict[str, Any], pointer: str
) -> None:
    good = {"name": "bad", "pipeline_uuid": "hello", "schedule_type": "time", "schedule_interval": "@daily"}
    answer = await api.post(URL, json={**good, **fault})
    assert_problem(answer, 422, "invalid_input")
    assert pointer in [found["pointer"] for found in answer.json()["errors"]]
    assert (await api.get(URL, params={"name": "bad"})).json()["items"] == []


async def test_a_trigger_of_an_invalid_pipeline_is_refused_with_its_error(api: httpx.AsyncClient) -> None:
    asked = {
        "name": "x",
        "pipeline_uuid": "invalid",
        "schedule_type": "time",
        "schedule_interval": "@daily",
    }
    assert_problem(await api.post(URL, json=asked), 422, "pipeline_invalid")


async def test_a_name_is_taken_once_in_a_pipeline(api: httpx.AsyncClient) -> None:
    await make(api, "mine")
    asked = {
        "name": "mine",
        "pipeline_uuid": "hello",
        "schedule_type": "time",
        "schedule_interval": "@daily",
    }
    assert_problem(await api.post(URL, json=asked), 409, "name_taken")
    await make(api, "mine", pipeline_uuid="slow")


async def test_a_change_replaces_what_it_names_and_null_takes_back(api: httpx.AsyncClient) -> None:
    made = await make(api, "changing", timezone="Asia/Tokyo", variables={"a": 1, "b": 2}, description="d")
    url = f"{URL}/{made['id']}"
    answer = await api.patch(url, json={"variables": {"c": 3}, "timezone": None, "status": "active"})
    changed = answer.json()
    assert (answer.status_code, answer.headers["etag"]) == (200, '"2"')
    assert (changed["variables"], changed["timezone"], changed["description"]) == ({"c": 3}, None, "d")
    assert changed["next_execution_date"] is not None and changed["last_enabled_at"] is not None
    same = await api.patch(url, json={"variables": {"c": 3}})
    assert same.json() == changed, "what changes nothing is no new revision"
    assert (await api.patch(url, json={})).json() == changed


@pytest.mark.parametrize(
    ("fault", "pointer"),
    [
        ({"schedule_interval": "never"}, "/schedule_interval"),
        ({"schedule_interval": None}, "/schedule_interval"),
        ({"schedule_type": "api"}, "/schedule_interval"),
        ({"schedule_type": "event"}, "/schedule_type"),
        ({"pipeline_uuid": "slow"}, "/pipeline_uuid"),
        ({"name": ""}, "/name"),
        ({"name": None}, "/name"),
        ({"status": None}, "/status"),
        ({"variables": None}, "/variables"),
        ({"revision": 7}, "/revision"),
    ],
)
async def test_a_bad_change_changes_nothing(
    api: httpx.AsyncClient, fault: dict[str, Any], pointer: str
) -> None:
    name = f"unchanged {fault}"[:200]
    made = await make(api, name)
    answer = await api.patch(f"{URL}/{made['id']}", json=fault)
    assert_problem(answer, 422, "invalid_input")
    assert pointer in [found["pointer"] for found in answer.json()["errors"]]
    assert (await api.get(f"{URL}/{made['id']}")).json()["revision"] == 1


async def test_who_has_seen_an_older_one_changes_nothing(api: httpx.AsyncClient) -> None:
    made = await make(api, "guarded")
    url = f"{URL}/{made['id']}"
    first = await api.patch(url, json={"description": "1"}, headers={"If-Match": '"1"'})
    assert (first.status_code, first.headers["etag"]) == (200, '"2"')
    for stale in ('"1"', 'W/"2"', "2", '"2", "3"', '"zwei"'):
        answer = await api.patch(url, json={"description": "2"}, headers={"If-Match": stale})
        assert_problem(answer, 412, "precondition_failed")
        assert_problem(await api.delete(url, headers={"If-Match": stale}), 412, "precondition_failed")
    assert (await api.get(url)).json()["description"] == "1"
    assert (await api.patch(url, json={"description": "3"}, headers={"If-Match": "*"})).status_code == 200
    assert (await api.delete(url, headers={"If-Match": '"3"'})).status_code == 204


async def test_pause_and_resume(api: httpx.AsyncClient) -> None:
    made = await make(api, "resting", status="active")
    url = f"{URL}/{made['id']}"
    paused = (await api.post(f"{url}/pause")).json()
    assert (paused["status"], paused["next_execution_date"]) == ("inactive", None)
    assert (await api.post(f"{url}/pause", json={})).json() == paused
    resumed = (await api.post(f"{url}/resume")).json()
    assert (resumed["status"], resumed["next_execution_date"]) == ("active", made["next_execution_date"])
    answer = await api.post(f"{url}/resume", json={"missed": "some"})
    assert_problem(answer, 422, "invalid_input")
    assert (await api.post(f"{url}/resume", json={"missed": "all"})).json() == resumed


async def paused_for(api: httpx.AsyncClient, name: str, **values: Any) -> dict[str, Any]:
    """A trigger that is paused, and whose last slot was three days ago."""
    made = await make(api, name, status="active", **values)
    await api.post(f"{URL}/{made['id']}/pause")
    midnight = clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
    cursor = SCHEDULE.update().where(SCHEDULE.c.id == made["id"])
    await engine_of(api).db.write(
        lambda tx: tx.execute(cursor.values(cursor_at=midnight - timedelta(days=3)))
    )
    return made


async def test_a_resume_is_looked_at_before_and_does_what_it_said(api: httpx.AsyncClient) -> None:
    for missed, expected in {None: 0, "skip": 0, "latest": 1, "all": 3}.items():
        made = await paused_for(api, f"missed {missed}")
        url = f"{URL}/{made['id']}"
        found = (await api.get(f"{url}/resume")).json()
        assert (found["count"], found["capped"]) == (3, False)
        assert found["last"] > found["first"]
        assert found["choices"]["all"] == {"runs": 3, "dropped": 0}
        assert found["choices"][missed or "skip"] == {"runs": expected, "dropped": 3 - expected}
        body = {"json": {"missed": missed}} if missed else {}
        answer = await api.post(f"{url}/resume", **body)  # type: ignore[arg-type]
        assert (answer.status_code, answer.json()["status"]) == (200, "active")
        await engine_of(api)._tick()
        slots = (await api.get(f"{url}/slots")).json()["items"]
        assert sum(slot["count"] for slot in slots) == 3
        assert [slot["outcome"] for slot in slots].count("run") == expected
        assert {slot["reason"] for slot in slots if slot["outcome"] == "skipped"} <= {"paused"}
        nothing = (await api.get(f"{url}/resume")).json()
        assert (nothing["count"], nothing["first"]) == (0, None), "an active one has missed nothing"
    assert_problem(await api.get(f"{URL}/987654321/resume"), 404, "schedule_not_found")


async def test_a_trigger_is_fired_now_with_its_variables_and_waited_for(api: httpx.AsyncClient) -> None:
    made = await make(api, "by hand", variables={"name": "ada", "n": 1})
    url = f"{URL}/{made['id']}/pipeline_runs"
    asked = {"variables": {"n": 2}, "execution_date": "2026-01-31T08:00:00Z"}
    answer = await api.post(url, json=asked, headers={"Prefer": "wait=30"})
    run = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"{RUNS}/{run['id']}"
    assert (run["status"], run["cause"], run["pipeline_schedule_id"]) == ("completed", "api", made["id"])
    assert run["variables"] == {"name": "ada", "n": 2}
    assert run["execution_date"] == "2026-01-31T08:00:00Z"
    at_once = await api.post(url)
    assert at_once.status_code == 201 and at_once.json()["block_runs"] is None
    listed = (await api.get(RUNS, params={"pipeline_schedule_id": made["id"]})).json()["items"]
    assert [one["id"] for one in listed] == [at_once.json()["id"], run["id"]]
    assert_problem(await api.post(url, json={"block_uuid": "greet"}), 422, "invalid_input")


async def test_a_trigger_that_waits_says_so(api: httpx.AsyncClient) -> None:
    made = await make(api, "slow one", pipeline_uuid="slow", settings={"pipeline_run_limit": 1})
    url = f"{URL}/{made['id']}/pipeline_runs"
    first = await api.post(url, headers={"Prefer": "wait=1"})
    assert (first.status_code, first.json()["status"]) == (202, "running")
    second = (await api.post(url)).json()
    assert (second["status"], second["status_reason"]) == ("cancelled", "pipeline_run_limit")
    await api.post(f"{RUNS}/{first.json()['id']}/cancel", headers={"Prefer": "wait=30"})


async def test_a_key_makes_one_run_and_one_trigger(api: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "once"}
    asked = {"name": "keyed", "pipeline_uuid": "hello", "schedule_type": "api"}
    first = await api.post(URL, json=asked, headers=key)
    again = await api.post(URL, json=asked, headers=key)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json()["token"] and again.json()["token"] is None
    assert first.headers["cache-control"] == again.headers["cache-control"] == "no-store"
    assert again.json() == {**first.json(), "token": None}
    url = f"{URL}/{first.json()['id']}/pipeline_runs"
    runs = [(await api.post(url, headers=key)).json()["id"] for _ in range(2)]
    assert runs[0] == runs[1]
    kept = await engine_of(api).db.read(
        lambda tx: tx.exec_driver_sql("SELECT answer FROM idempotency_key").all()
    )
    assert first.json()["token"] not in str(kept)


async def test_a_deleted_trigger_is_gone_and_its_history_is_not(api: httpx.AsyncClient) -> None:
    made = await make(api, "passing")
    url = f"{URL}/{made['id']}"
    run = (await api.post(f"{url}/pipeline_runs", headers={"Prefer": "wait=30"})).json()
    answer = await api.delete(url)
    assert (answer.status_code, answer.content) == (204, b"")
    for method, path in (
        ("GET", ""),
        ("DELETE", ""),
        ("PATCH", ""),
        ("POST", "/pause"),
        ("POST", "/resume"),
        ("POST", "/pipeline_runs"),
        ("POST", "/rotate_token"),
    ):
        body = {"json": {}} if method == "PATCH" else {}
        assert_problem(await api.request(method, url + path, **body), 404, "schedule_not_found")  # type: ignore[arg-type]
    assert made["id"] not in [
        row["id"] for row in (await api.get(URL, params={"limit": 200})).json()["items"]
    ]
    assert (await api.get(f"{RUNS}/{run['id']}")).json() == run
    assert (await api.get(f"{url}/slots")).json() == {"items": [], "next_cursor": None}
    await make(api, "passing")


async def test_a_trigger_of_a_file_is_changed_in_the_file(api: httpx.AsyncClient) -> None:
    (filed,) = (await api.get(URL, params={"name": "yearly"})).json()["items"]
    assert filed["managed_by"] == "file"
    url = f"{URL}/{filed['id']}"
    for answer in (
        await api.patch(url, json={"status": "inactive"}),
        await api.delete(url),
        await api.post(f"{url}/pause"),
        await api.post(f"{url}/resume"),
    ):
        assert_problem(answer, 409, "managed_by_file")
        assert "pipelines/hello/triggers.yaml" in answer.json()["hint"]
    run = await api.post(f"{url}/pipeline_runs", headers={"Prefer": "wait=30"})
    assert run.json()["status"] == "completed"
    (quarantined,) = (await api.get(URL, params={"name": "unreadable"})).json()["items"]
    answer = await api.post(f"{URL}/{quarantined['id']}/pipeline_runs")
    assert_problem(answer, 409, "quarantined")


async def test_a_token_is_for_api_triggers_and_shown_once(api: httpx.AsyncClient) -> None:
    timed = await make(api, "timed")
    assert_problem(await api.post(f"{URL}/{timed['id']}/rotate_token"), 422, "invalid_input")
    made = await make(api, "with token", schedule_type="api")
    assert len(made["token"]) == 43
    answer = await api.post(f"{URL}/{made['id']}/rotate_token")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json().keys() == {"token"} and answer.json()["token"] != made["token"]
    shown = (await api.get(f"{URL}/{made['id']}")).text + (await api.get(URL, params={"limit": 200})).text
    assert made["token"] not in shown and answer.json()["token"] not in shown and '"token' not in shown


async def test_the_ledger_comes_in_pages_that_join(api: httpx.AsyncClient) -> None:
    made = await make(api, "ledger", status="active")
    day = 86_400_000_000
    start = to_us(from_us(0)) - 3 * day  # before 1970 too: a date is a date

    def write(tx: Any) -> None:
        for n in range(5):
            tx.execute(
                SLOT.insert().values(
                    pipeline_schedule_id=made["id"],
                    execution_date=from_us(start + n * day),
                    outcome="missed",
                    reason="catch_up",
                    slot_count=1,
                    revision=1,
                    decided_by="test",
                    decided_at=from_us(start),
                )
            )

    await engine_of(api).db.write(write)
    url = f"{URL}/{made['id']}/slots"
    whole = (await api.get(url)).json()
    assert [slot["execution_date"][:10] for slot in whole["items"]] == [
        "1970-01-02",
        "1970-01-01",
        "1969-12-31",
        "1969-12-30",
        "1969-12-29",
    ]
    assert whole["items"][0].keys() >= {"outcome", "reason", "pipeline_run_id", "until", "count"}
    pages, cursor = [], None
    while True:
        page = (await api.get(url, params={"limit": 2, **({"cursor": cursor} if cursor else {})})).json()
        pages += page["items"]
        if (cursor := page["next_cursor"]) is None:
            break
    assert pages == whole["items"]
    for bad in ("c2NoZWR1bGU6MQ", "c2xvdDo3", "c2xvdDoyMDI2LTAxLTAx"):  # another list, a number, a naive date
        assert_problem(await api.get(url, params={"cursor": bad}), 422, "invalid_input")
    assert_problem(await api.get(f"{URL}/987654321/slots"), 404, "schedule_not_found")


async def test_what_is_correct_holds_after_all_that(api: httpx.AsyncClient) -> None:
    await assert_hold(engine_of(api).db)
