"""Why, over HTTP: of slots and of runs; the ledger with its filters; the look ahead."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from app import clock
from app.store.sql import SCHEDULE, SLOT
from tests.api.test_bad_requests import assert_problem
from tests.api.test_schedules import RUNS, URL, engine_of, make
from tests.invariants import assert_hold
from tests.waits import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

WEDNESDAY = datetime(2026, 3, 25, tzinfo=UTC)


async def wrote(api: httpx.AsyncClient, schedule_id: int, *slots: dict[str, Any]) -> None:
    """Put rows into the ledger of a trigger that does not fire, and its cursor behind them."""

    def write(tx: Any) -> None:
        for slot in slots:
            known = {"outcome": "missed", "reason": "catch_up", "slot_count": 1, "revision": 1}
            known |= {"decided_by": "test", "pipeline_schedule_id": schedule_id}
            values = {**known, "decided_at": slot["execution_date"], **slot}
            tx.execute(SLOT.insert().values(**values))
        last = max(slot.get("until") or slot["execution_date"] for slot in slots)
        tx.execute(SCHEDULE.update().where(SCHEDULE.c.id == schedule_id).values(cursor_at=last))

    await engine_of(api).db.write(write)


async def explained(api: httpx.AsyncClient, schedule_id: int, at: datetime) -> dict[str, Any]:
    answer = await api.get(f"{URL}/{schedule_id}/explain", params={"at": at.isoformat()})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert found["summary"] == found["reasons"][0]["message"]
    return found


def codes(found: dict[str, Any]) -> list[str]:
    return [reason["code"] for reason in found["reasons"]]


async def test_a_slot_that_was_decided_is_explained_by_its_row(api: httpx.AsyncClient) -> None:
    made = await make(api, "explained")
    day = timedelta(days=1)
    text = "blackout 'freeze': 26 March"
    await wrote(
        api,
        made["id"],
        {"execution_date": WEDNESDAY, "until": WEDNESDAY + 20 * day, "slot_count": 21},
        {
            "execution_date": WEDNESDAY + 30 * day,
            "outcome": "skipped",
            "reason": "blackout",
            "detail": {"text": text},
        },
    )
    found = await explained(api, made["id"], WEDNESDAY + 3 * day)
    assert codes(found) == ["catch_up"] and found["reasons"][0]["detail"]["count"] == 21
    assert found["slot"]["until"] == "2026-04-14T00:00:00Z"
    assert found["next"]["outcome"] is None and found["previous"]["outcome"] == "missed"
    found = await explained(api, made["id"], WEDNESDAY + 30 * day)
    assert codes(found) == ["blackout"] and text in found["summary"]
    assert found["slot"]["detail"] == {"text": text} and found["slot"]["decided_by"] == "test"


async def test_a_run_that_was_made_is_named(api: httpx.AsyncClient) -> None:
    made = await make(api, "at once", schedule_interval="@once", status="active")
    while not (slots := (await api.get(f"{URL}/{made['id']}/slots")).json()["items"]):
        await engine_of(api)._tick()
    at = datetime.fromisoformat(slots[0]["execution_date"])
    await api.get(f"{RUNS}/{slots[0]['pipeline_run_id']}")
    assert await engine_of(api).wait(slots[0]["pipeline_run_id"], 30)
    found = await explained(api, made["id"], at)
    assert codes(found) == ["run"]
    assert found["reasons"][0]["detail"]["pipeline_run_id"] == slots[0]["pipeline_run_id"]
    assert found["reasons"][0]["detail"]["status"] == "completed"


async def test_what_was_never_due_or_never_there_is_said(api: httpx.AsyncClient) -> None:
    made = await make(api, "sleeping", timezone="Europe/Berlin", schedule_interval="30 2 * * *")
    found = await explained(api, made["id"], WEDNESDAY)
    assert codes(found)[0] == "not_created"
    soon = clock.now() + timedelta(hours=1)
    found = await explained(api, made["id"], soon)
    assert codes(found)[:2] == ["inactive", "not_due"]
    assert found["next"]["execution_date"] > found["at"] > found["previous"]["execution_date"]
    (quarantined,) = (await api.get(URL, params={"name": "unreadable"})).json()["items"]
    found = await explained(api, quarantined["id"], soon)
    assert codes(found) == ["quarantined"] and "every now and then" in found["summary"]
    assert (found["previous"], found["next"]) == (None, None)
    called = await make(api, "called", schedule_type="api", status="active")
    assert codes(await explained(api, called["id"], soon)) == ["no_time_trigger"]
    assert (await api.delete(f"{URL}/{made['id']}")).status_code == 204
    assert codes(await explained(api, made["id"], soon))[0] == "deleted"


async def test_what_is_to_come_is_said_with_its_blackout(api: httpx.AsyncClient) -> None:
    made = await make(
        api,
        "to come",
        status="active",
        settings={"blackouts": [{"weekdays": ["sat", "sun"], "name": "weekend"}]},
    )
    midnight = clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
    days = [midnight + timedelta(days=n) for n in range(1, 8)]
    saturday = next(day for day in days if day.weekday() == 5)
    monday = next(day for day in days if day.weekday() == 0)
    found = await explained(api, made["id"], saturday)
    assert codes(found) == ["blackout"] and "weekend" in found["summary"]
    assert codes(await explained(api, made["id"], monday)) == ["not_yet"]
    found = await explained(api, made["id"], saturday - timedelta(seconds=1))
    assert found["next"]["starts_at"] is None and "weekend" in found["next"]["notes"][0]


@pytest.mark.parametrize("at", ["", "yesterday", "2026-03-29T02:30:00", "0001-01-01T00:00:00Z"])
async def test_a_moment_is_a_time_with_an_offset(api: httpx.AsyncClient, at: str) -> None:
    answer = await api.get(f"{URL}/1/explain", params={"at": at})
    assert_problem(answer, 422, "invalid_input")
    assert [fault["pointer"] for fault in answer.json()["errors"]] == ["at"]
    assert_problem(await api.get(f"{URL}/1/explain"), 422, "invalid_input")


async def test_what_is_not_there_is_a_404(api: httpx.AsyncClient) -> None:
    answer = await api.get(f"{URL}/987654321/explain", params={"at": "2026-01-01T00:00:00Z"})
    assert_problem(answer, 404, "schedule_not_found")
    assert_problem(await api.get(f"{RUNS}/987654321/explain"), 404, "run_not_found")


async def test_the_ledger_is_filtered(api: httpx.AsyncClient) -> None:
    made = await make(api, "filtered")
    day = timedelta(days=1)
    await wrote(
        api,
        made["id"],
        {"execution_date": WEDNESDAY, "until": WEDNESDAY + 5 * day, "slot_count": 6},
        {"execution_date": WEDNESDAY + 6 * day, "outcome": "skipped", "reason": "overlap"},
        {"execution_date": WEDNESDAY + 7 * day, "outcome": "missed", "reason": "edited"},
    )

    async def days(**filters: Any) -> list[int]:
        page = (await api.get(f"{URL}/{made['id']}/slots", params=filters)).json()
        return [int(slot["execution_date"][8:10]) for slot in page["items"]]

    assert await days() == [1, 31, 25]
    assert await days(outcome="missed") == [1, 25]
    assert await days(outcome=["missed", "skipped"], reason=["overlap", "edited"]) == [1, 31]
    since = {"execution_date[gte]": (WEDNESDAY + 3 * day).isoformat()}
    assert await days(**since) == [1, 31, 25], "the stretch reaches into the range"
    assert await days(**since, **{"execution_date[lt]": (WEDNESDAY + 7 * day).isoformat()}) == [31, 25]
    page = (await api.get(f"{URL}/{made['id']}/slots", params={"outcome": "missed", "limit": 1})).json()
    assert await days(outcome="missed", cursor=page["next_cursor"]) == [25]
    answer = await api.get(f"{URL}/{made['id']}/slots", params={"outcome": "late"})
    assert_problem(answer, 422, "invalid_input")


async def test_runs_explain_themselves(api: httpx.AsyncClient) -> None:
    async def reasons(run_id: int) -> list[dict[str, Any]]:
        found = (await api.get(f"{RUNS}/{run_id}/explain")).json()
        assert found["summary"] == found["reasons"][0]["message"]
        listed: list[dict[str, Any]] = found["reasons"]
        return listed

    wait = {"Prefer": "wait=30"}
    good = (await api.post("/api/v1/pipelines/hello/pipeline_runs", headers=wait)).json()
    assert [reason["code"] for reason in await reasons(good["id"])] == ["completed"]
    bad = (await api.post("/api/v1/pipelines/broken_code/pipeline_runs", headers=wait)).json()
    (first,) = await reasons(bad["id"])
    assert first["message"] == "Block 'explode' failed: ValueError: no luck today (custom/explode.py:4)."
    assert (await api.get(first["detail"]["log"])).status_code == 200
    slow = (await api.post("/api/v1/pipelines/slow/pipeline_runs")).json()

    async def works() -> bool:
        return "waiting" in (await api.get(f"{RUNS}/{slow['id']}/logs")).text

    await until(works, 30)
    assert [reason["code"] for reason in await reasons(slow["id"])] == ["block_runs", "runs_on_node"]
    await api.post(f"{RUNS}/{slow['id']}/cancel", headers=wait)
    assert [reason["code"] for reason in await reasons(slow["id"])] == ["cancel_requested", "stopped"]


async def test_what_is_correct_holds_after_all_that(api: httpx.AsyncClient) -> None:
    await assert_hold(engine_of(api).db)
