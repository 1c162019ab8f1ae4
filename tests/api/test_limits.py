"""The limits of the API: set, look, lift, and what a run says that they keep."""

import httpx
import pytest

pytestmark = pytest.mark.asyncio(loop_scope="module")
LIMITS = "/api/v1/limits"


async def test_a_limit_is_set_looked_at_and_lifted(api: httpx.AsyncClient) -> None:
    put = await api.put(f"{LIMITS}/key:k-1", json={"cap": 0})
    assert put.status_code == 200
    assert {name: put.json()[name] for name in ("scope", "cap", "source", "running", "waiting")} == {
        "scope": "key:k-1",
        "cap": 0,
        "source": "api",
        "running": 0,
        "waiting": 0,
    }
    made = await api.post("/api/v1/pipelines/hello/pipeline_runs", json={"concurrency_key": "k-1"})
    run = made.json()
    assert (run["status"], run["concurrency_key"]) == ("initial", "k-1")
    shown = (await api.get(f"/api/v1/pipeline_runs/{run['id']}")).json()
    assert shown["status_detail"]["waits_for"][0]["scope"] == "key:k-1"
    why = (await api.get(f"/api/v1/pipeline_runs/{run['id']}/explain")).json()
    assert why["reasons"][0]["code"] == "limit_zero"
    listed = (await api.get(LIMITS)).json()["items"]
    assert [(item["scope"], item["waiting"]) for item in listed] == [("key:k-1", 1)]
    await api.put(f"{LIMITS}/key:k-1", json={"cap": 3})
    assert (await api.delete(f"{LIMITS}/key:k-1")).status_code == 204
    assert (await api.get(f"{LIMITS}/key:k-1")).status_code == 404
    missing = await api.delete(f"{LIMITS}/key:k-1")
    assert (missing.status_code, missing.json()["code"]) == (404, "limit_not_found")
    history = (await api.get(f"{LIMITS}/key:k-1/history", params={"limit": 2})).json()
    assert [change["cap"] for change in history["items"]] == [None, 3]
    more = await api.get(f"{LIMITS}/key:k-1/history", params={"cursor": history["next_cursor"]})
    assert [change["cap"] for change in more.json()["items"]] == [0]
    await api.post(f"/api/v1/pipeline_runs/{run['id']}/cancel")


@pytest.mark.parametrize("scope", ["nonsense", "schedule:x", "key:", "global:1"])
async def test_a_scope_that_no_run_has_is_refused(api: httpx.AsyncClient, scope: str) -> None:
    found = await api.put(f"{LIMITS}/{scope}", json={"cap": 1})
    assert (found.status_code, found.json()["errors"][0]["pointer"]) == (422, "scope")


async def test_a_cap_is_a_whole_number(api: httpx.AsyncClient) -> None:
    for cap in (-1, 1.5, "2", None):
        assert (await api.put(f"{LIMITS}/global", json={"cap": cap})).status_code == 422


async def test_runs_are_filtered_by_their_sla(api: httpx.AsyncClient) -> None:
    late = await api.get("/api/v1/pipeline_runs", params={"passed_sla": "true"})
    assert (late.status_code, late.json()["items"]) == (200, [])
    assert (await api.get("/api/v1/pipeline_runs", params={"passed_sla": "yes"})).status_code == 422
