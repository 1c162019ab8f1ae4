"""The pause of everything, the look ahead, and triggers brought to their files, over HTTP on a service of their own."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from app import clock
from app.store.sql import REVISION, SCHEDULE
from tests.api.test_bad_requests import assert_problem
from tests.api.test_schedules import RUNS, URL, engine_of, make
from tests.invariants import assert_hold

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAUSE, RESUME = "/api/v1/system/pause", "/api/v1/system/resume"
PREVIEW = f"{URL}/preview"


def project_of(api: httpx.AsyncClient) -> Path:
    return engine_of(api).settings.project


async def due_now(api: httpx.AsyncClient, schedule_id: int, days: int = 3) -> None:
    """Let a trigger be older, and its slots of the last days be due."""
    midnight = clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
    values = {"cursor_at": midnight - timedelta(days=days), "next_fire_at": midnight}
    older = REVISION.update().where(REVISION.c.schedule_id == schedule_id)

    def write(tx: Any) -> None:
        tx.execute(SCHEDULE.update().where(SCHEDULE.c.id == schedule_id).values(**values))
        tx.execute(older.values(at=midnight - timedelta(days=days), cursor_at=values["cursor_at"]))

    await engine_of(api).db.write(write)


async def test_while_everything_is_paused_no_slot_is_decided(api: httpx.AsyncClient) -> None:
    made = await make(api, "paused with all", status="active", settings={"catch_up": "all"})
    state = (await api.get(PAUSE)).json()
    assert state == {"paused": False, "at": None, "note": None, "paused_here": False}
    state = (await api.post(PAUSE, json={"note": "migration"})).json()
    assert (state["paused"], state["note"]) == (True, "migration")
    assert (await api.post(PAUSE, json={"note": "again"})).json() == state, "the first pause holds"
    assert (await api.get(PAUSE)).json() == state
    await due_now(api, made["id"])
    await engine_of(api)._tick()
    assert (await api.get(f"{URL}/{made['id']}/slots")).json()["items"] == []
    midnight = clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
    answer = await api.get(f"{URL}/{made['id']}/explain", params={"at": midnight.isoformat()})
    reasons = [reason["code"] for reason in answer.json()["reasons"]]
    assert reasons[:2] == ["undecided", "scheduler_paused"]
    health = (await api.get("/health")).json()
    assert health["paused"] is True
    run = await api.post("/api/v1/pipelines/hello/pipeline_runs", headers={"Prefer": "wait=30"})
    assert run.json()["status"] == "completed", "what somebody launches runs"
    state = (await api.post(RESUME)).json()
    assert (state["paused"], state["at"]) == (False, None)
    assert (await api.post(RESUME)).json() == state, "nothing is paused: nothing changes"
    await engine_of(api)._tick()
    slots = (await api.get(f"{URL}/{made['id']}/slots")).json()["items"]
    assert [slot["outcome"] for slot in slots] == ["run", "run", "run"], "its own catch_up decides"
    assert (await api.get("/health")).json()["paused"] is False


async def test_a_resume_of_all_may_drop_what_was_due(api: httpx.AsyncClient) -> None:
    made = await make(api, "dropped with all", status="active", settings={"catch_up": "all"})
    await api.post(PAUSE)
    await due_now(api, made["id"])
    await api.post(RESUME, json={"missed": "skip"})
    await engine_of(api)._tick()
    slots = (await api.get(f"{URL}/{made['id']}/slots")).json()["items"]
    assert {(slot["outcome"], slot["reason"]) for slot in slots} == {("skipped", "paused")}
    assert sum(slot["count"] for slot in slots) == 3
    for url, body in ((PAUSE, {"note": 7}), (RESUME, {"missed": "some"}), (PAUSE, {"until": "now"})):
        assert_problem(await api.post(url, json=body), 422, "invalid_input")


async def test_a_definition_is_looked_at_before_it_is_made(api: httpx.AsyncClient) -> None:
    asked = {
        "schedule_interval": "30 2 * * *",
        "timezone": "Europe/Berlin",
        "after": "2026-03-27T12:00:00Z",
        "count": 3,
        "settings": {
            "blackouts": [{"from": "2026-03-30", "to": "2026-03-30", "name": "audit"}],
            "jitter_s": 60,
        },
    }
    answer = await api.post(PREVIEW, json=asked)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["in_words"], found["timezone"]) == ("at 02:30 every day", "Europe/Berlin")
    assert [slot["execution_date"] for slot in found["items"]] == [
        "2026-03-28T02:30:00+01:00",
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
    ]
    notes = [[note["code"] for note in slot["notes"]] for slot in found["items"]]
    assert notes == [["jitter"], ["dst_moved", "jitter"], ["blackout", "jitter"]]
    assert [slot["starts_at"] is None for slot in found["items"]] == [False, False, True]
    assert [(mark["code"], mark["wall"]) for mark in found["clock_changes"]] == [
        ("dst_moved", "2026-03-29T02:30:00"),
        ("dst_dropped", "2026-10-25T02:30:00"),
        ("dst_moved", "2027-03-28T02:30:00"),
    ]
    skipping = {**asked, "settings": {"dst_gap": "skip", "dst_overlap": "both"}}
    found = (await api.post(PREVIEW, json=skipping)).json()
    codes = {mark["code"] for mark in found["clock_changes"]}
    assert codes == {"dst_dropped", "dst_doubled"}
    assert (await api.post(PREVIEW, json={"schedule_interval": "@always_on"})).json()["items"] == []
    assert (await api.get(URL, params={"name": "preview"})).json()["items"] == [], "nothing is kept"


@pytest.mark.parametrize(
    ("fault", "pointer"),
    [
        ({"schedule_interval": "61 * * * *"}, "/schedule_interval"),
        ({"schedule_interval": None}, "/schedule_interval"),
        ({"timezone": "Mars/Olympus"}, "/timezone"),
        ({"settings": {"blackouts": [{"weekdays": ["funday"]}]}}, "/settings/blackouts"),
        ({"settings": {"dst_gap": "later"}}, "/settings/dst_gap"),
        ({"settings": {"retries": 1}}, "/settings/retries"),
        ({"count": 0}, "/count"),
        ({"count": 201}, "/count"),
        ({"after": "tomorrow"}, "/after"),
        ({"name": "x"}, "/name"),
    ],
)
async def test_a_definition_with_a_fault_has_no_preview(
    api: httpx.AsyncClient, fault: dict[str, Any], pointer: str
) -> None:
    answer = await api.post(PREVIEW, json={"schedule_interval": "@daily", **fault})
    assert_problem(answer, 422, "invalid_input")
    assert pointer in [found["pointer"] for found in answer.json()["errors"]]


async def test_what_comes_next_is_told_of_all_triggers_in_order(api: httpx.AsyncClient) -> None:
    hourly = await make(api, "each hour", schedule_interval="@hourly", status="active")
    daily = await make(api, "each day", pipeline_uuid="slow", status="active", timezone="Asia/Tokyo")
    await make(api, "sleeps", schedule_interval="@hourly")
    found = (await api.get(f"{URL}/upcoming", params={"count": 60})).json()["items"]
    dates = [datetime.fromisoformat(slot["execution_date"]) for slot in found]
    assert dates == sorted(dates) and len(found) == 60
    assert {"each hour", "each day"} <= {slot["name"] for slot in found}
    assert "sleeps" not in {slot["name"] for slot in found}
    one = {"pipeline_schedule_id": daily["id"], "count": 2}
    found = (await api.get(f"{URL}/upcoming", params=one)).json()["items"]
    assert [slot["pipeline_schedule_id"] for slot in found] == [daily["id"]] * 2
    assert all(slot["execution_date"].endswith("T00:00:00+09:00") for slot in found)
    found = (await api.get(f"{URL}/upcoming", params={"pipeline_uuid": "slow"})).json()["items"]
    assert {slot["name"] for slot in found} == {"each day"}
    shown = (await api.get(f"{URL}/{hourly['id']}")).json()
    (first,) = (
        await api.get(f"{URL}/upcoming", params={"pipeline_schedule_id": hourly["id"], "count": 1})
    ).json()["items"]
    same = datetime.fromisoformat(first["execution_date"])
    assert datetime.fromisoformat(shown["next_execution_date"]) == same
    for bad in ({"count": 0}, {"count": 201}, {"pipeline_schedule_id": 0}, {"status": "active"}):
        assert_problem(await api.get(f"{URL}/upcoming", params=bad), 422, "invalid_input")


async def test_triggers_are_brought_to_their_files_when_asked(api: httpx.AsyncClient) -> None:
    file = project_of(api) / "pipelines/slow/triggers.yaml"
    file.write_text(
        "triggers:\n"
        "- {name: kept, schedule_type: time, schedule_interval: '@daily', status: active}\n"
        "- {name: passing, schedule_type: time, schedule_interval: '@daily', status: active}\n"
    )
    url = f"{URL}/apply"
    planned = (await api.post(url, json={"dry_run": True})).json()
    assert planned["dry_run"] is True
    await api.post(url)
    ids = {
        row["name"]: row["id"]
        for row in (await api.get(URL, params={"pipeline_uuid": "slow"})).json()["items"]
        if row["managed_by"] == "file"
    }
    assert ids.keys() == {"kept", "passing"}
    nothing = (await api.post(url, json={"prune": True})).json()
    assert [len(nothing[name]) for name in ("created", "changed", "deactivated", "deleted")] == [0, 0, 0, 0]
    file.write_text("triggers:\n- {name: kept, schedule_type: time, schedule_interval: '@daily'}\n")
    await api.post(url)
    gone = (await api.get(f"{URL}/{ids['passing']}")).json()
    assert (gone["status"], gone["managed_by"]) == ("inactive", "api")
    planned = (await api.post(url, json={"prune": True, "dry_run": True})).json()
    assert [one["id"] for one in planned["deleted"]] == [ids["passing"]]
    done = (await api.post(url, json={"prune": True})).json()
    assert done["deleted"] == planned["deleted"] and done["dry_run"] is False
    assert_problem(await api.get(f"{URL}/{ids['passing']}"), 404, "schedule_not_found")
    assert (await api.get(f"{URL}/{ids['kept']}")).json()["status"] == "inactive"
    assert (await api.post(url, json={"prune": True})).json()["deleted"] == []


async def test_what_is_correct_holds_after_all_that(api: httpx.AsyncClient) -> None:
    live = (await api.get(RUNS, params={"status": ["initial", "running"], "limit": 200})).json()["items"]
    for run in live:
        await api.post(f"{RUNS}/{run['id']}/cancel", headers={"Prefer": "wait=30"})
    await assert_hold(engine_of(api).db)
