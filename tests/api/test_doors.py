"""What the API does when it is asked well."""

import httpx
import pytest

pytestmark = pytest.mark.asyncio(loop_scope="module")

V1 = "/api/v1"


async def start(
    api: httpx.AsyncClient, pipeline: str, *, wait: int | None = 30, **body: object
) -> httpx.Response:
    headers = {} if wait is None else {"Prefer": f"wait={wait}"}
    return await api.post(f"{V1}/pipelines/{pipeline}/pipeline_runs", json=body, headers=headers)


async def test_the_pipelines_are_listed_with_the_invalid_one_and_its_error(api: httpx.AsyncClient) -> None:
    page = (await api.get(f"{V1}/pipelines")).json()
    found = {pipeline["uuid"]: pipeline for pipeline in page["items"]}
    assert list(found) == sorted(found) == ["broken_code", "hello", "invalid", "sensing", "slow"]
    assert found["hello"]["name"] == "Hello" and found["hello"]["tags"] == ["demo"]
    assert [block["uuid"] for block in found["hello"]["blocks"]] == ["greet", "shout"]
    assert found["hello"]["blocks"][0]["downstream_blocks"] == ["shout"]
    assert found["invalid"]["status"] == "invalid" and found["invalid"]["blocks"] == []
    assert "pipelines/invalid/metadata.yaml:" in found["invalid"]["error"]
    assert "nobody" in found["invalid"]["error"]


async def test_pages_of_pipelines_join_without_gap(api: httpx.AsyncClient) -> None:
    first = (await api.get(f"{V1}/pipelines", params={"limit": 3})).json()
    rest = (await api.get(f"{V1}/pipelines", params={"cursor": first["next_cursor"]})).json()
    names = [pipeline["uuid"] for pipeline in first["items"] + rest["items"]]
    assert names == ["broken_code", "hello", "invalid", "sensing", "slow"]
    assert rest["next_cursor"] is None


async def test_one_pipeline_is_shown(api: httpx.AsyncClient) -> None:
    assert (await api.get(f"{V1}/pipelines/hello")).json()["description"] == "greets"
    assert (await api.get(f"{V1}/pipelines/invalid")).json()["status"] == "invalid"


async def test_a_run_that_is_waited_for_comes_back_completed(api: httpx.AsyncClient) -> None:
    asked = {"variables": {"name": "ada"}, "execution_date": "2026-01-31T08:00:00+01:00", "priority": 3}
    answer = await start(api, "hello", **asked)
    run = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"{V1}/pipeline_runs/{run['id']}"
    assert answer.headers["preference-applied"] == "wait=30"
    assert run["status"] == "completed" and run["cause"] == "api" and run["priority"] == 3
    assert run["variables"]["name"] == "ada"
    assert run["execution_date"] == "2026-01-31T07:00:00Z"
    assert [block["status"] for block in run["block_runs"]] == ["completed", "completed"]
    assert [block["attempts"][0]["outcome"] for block in run["block_runs"]] == ["completed", "completed"]


async def test_a_run_without_a_body_starts_and_is_not_waited_for(api: httpx.AsyncClient) -> None:
    answer = await api.post(f"{V1}/pipelines/hello/pipeline_runs")
    run = answer.json()
    assert answer.status_code == 201
    assert run["block_runs"] is None and run["status"] in ("initial", "running")
    assert (await api.get(answer.headers["location"])).json()["id"] == run["id"]


async def test_a_failing_block_says_why(api: httpx.AsyncClient) -> None:
    run = (await start(api, "broken_code")).json()
    assert run["status"] == "failed"
    error = run["block_runs"][0]["error"]
    assert (error["type"], error["message"]) == ("ValueError", "no luck today")
    assert (error["file"], error["line"]) == ("custom/explode.py", 4)
    block = (await api.get(f"{V1}/block_runs/{run['block_runs'][0]['id']}")).json()
    assert block["attempts"][0]["outcome"] == "failed" and block["pipeline_run_id"] == run["id"]


async def test_sensors_are_skipped_when_asked(api: httpx.AsyncClient) -> None:
    run = (await start(api, "sensing", skip_sensors=True)).json()
    assert run["status"] == "completed"
    assert [block["status"] for block in run["block_runs"]] == ["skipped", "completed"]


async def test_one_block_runs_on_the_outputs_of_the_run_before(api: httpx.AsyncClient) -> None:
    await start(api, "hello", variables={"name": "before"})
    run = (await start(api, "hello", block_uuid="shout")).json()
    assert run["status"] == "completed"
    lines = (await api.get(f"{V1}/pipeline_runs/{run['id']}/logs", params={"block_uuid": "shout"})).json()
    assert "shouting HELLO BEFORE" in [line["text"] for line in lines["items"]]


async def test_a_run_that_takes_longer_is_accepted_and_can_be_cancelled(api: httpx.AsyncClient) -> None:
    answer = await start(api, "slow", wait=1)
    run = answer.json()
    assert answer.status_code == 202 and run["status"] == "running"
    url = f"{V1}/pipeline_runs/{run['id']}/cancel"
    cancelled = (await api.post(url, headers={"Prefer": "wait=30"})).json()
    assert (cancelled["id"], cancelled["status"]) == (run["id"], "cancelled")
    assert cancelled["block_runs"][0]["attempts"][0]["outcome"] == "cancelled"
    again = await api.post(url, json={})
    assert again.status_code == 200
    assert again.json() == cancelled


async def test_the_log_comes_in_pages_that_join(api: httpx.AsyncClient) -> None:
    run = (await start(api, "hello", variables={"name": "bob"})).json()
    url = f"{V1}/pipeline_runs/{run['id']}/logs"
    whole = (await api.get(url)).json()
    texts = [line["text"] for line in whole["items"]]
    assert "hello bob" in texts and "shouting HELLO BOB" in texts
    assert whole["next_cursor"] is None
    pages, cursor = [], None
    while True:
        page = (await api.get(url, params={"limit": 1, **({"cursor": cursor} if cursor else {})})).json()
        pages += page["items"]
        if (cursor := page["next_cursor"]) is None:
            break
    assert pages == whole["items"]
    only = (await api.get(url, params={"block_uuid": "greet"})).json()["items"]
    assert {line["block_uuid"] for line in only} == {"greet"}


async def test_runs_are_listed_newest_first_and_filtered(api: httpx.AsyncClient) -> None:
    ids = [(await start(api, "hello")).json()["id"] for _ in range(3)]
    newest = (await api.get(f"{V1}/pipeline_runs", params={"limit": 2})).json()
    assert [run["id"] for run in newest["items"]] == ids[:0:-1]
    older = (await api.get(f"{V1}/pipeline_runs", params={"cursor": newest["next_cursor"]})).json()
    assert older["items"][0]["id"] == ids[0]

    async def some(**filters: object) -> list[dict[str, object]]:
        page = (await api.get(f"{V1}/pipeline_runs", params=filters)).json()  # type: ignore[arg-type]
        return list(page["items"])

    assert {run["pipeline_uuid"] for run in await some(pipeline_uuid="broken_code")} == {"broken_code"}
    both = await some(status=["failed", "cancelled"])
    assert {run["status"] for run in both} == {"failed", "cancelled"}
    assert await some(cause="backfill") == []
    assert await some(pipeline_schedule_id=4711) == []


async def test_the_triggers_are_listed_with_the_quarantined_one(api: httpx.AsyncClient) -> None:
    page = (await api.get(f"{V1}/pipeline_schedules")).json()
    found = {trigger["name"]: trigger for trigger in page["items"]}
    assert set(found) == {"yearly", "unreadable"}
    assert found["yearly"]["schedule_interval"] == "0 0 1 1 *" and found["yearly"]["error"] is None
    assert found["yearly"]["next_execution_date"].endswith("-01-01T00:00:00Z")
    assert "pipelines/hello/triggers.yaml:" in found["unreadable"]["error"]
    one = (await api.get(f"{V1}/pipeline_schedules/{found['yearly']['id']}")).json()
    assert one == found["yearly"]
    none = (await api.get(f"{V1}/pipeline_schedules", params={"pipeline_uuid": "slow"})).json()
    assert none["items"] == []


async def test_the_probes_answer(api: httpx.AsyncClient) -> None:
    assert (await api.get("/livez")).json() == {"status": "alive"}
    assert (await api.get("/readyz")).json() == {"status": "ready"}
    health = (await api.get("/health")).json()
    assert health["ready"] and [node["lease_until"] for node in health["nodes"]] == [
        None
    ]  # SQLite has no lease


async def test_a_head_is_a_get_without_its_body(api: httpx.AsyncClient) -> None:
    for path in ("/livez", "/docs", "/docs-static/swagger-ui.css", f"{V1}/pipelines"):
        whole, head = await api.get(path), await api.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == whole.headers["content-length"]
    assert (await api.head("/nowhere")).status_code == 404
    assert (await api.head(f"{V1}/pipelines/hello/pipeline_runs")).status_code == 405


async def test_the_bare_address_leads_to_the_page(api: httpx.AsyncClient) -> None:
    answer = await api.get("/", follow_redirects=True)
    assert answer.status_code == 200 and answer.url.path == "/docs"


async def test_every_answer_carries_a_request_id_and_protects_browsers(api: httpx.AsyncClient) -> None:
    for path in ("/livez", "/docs", "/nowhere", f"{V1}/pipelines"):
        headers = (await api.get(path, headers={"X-Request-Id": "caller-7"})).headers
        assert headers["x-request-id"] == "caller-7"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "default-src 'none'" in headers["content-security-policy"]
    own = (await api.get("/livez", headers={"X-Request-Id": "no spaces"})).headers["x-request-id"]
    assert own and own != "no spaces"


async def test_runs_are_filtered_by_ranges_of_time(api: httpx.AsyncClient) -> None:
    made = (await start(api, "hello", execution_date="2020-05-01T00:00:00Z")).json()
    inside = {"execution_date[gte]": "2020-05-01T00:00:00Z", "execution_date[lt]": "2020-05-01T00:00:01Z"}
    found = (await api.get(f"{V1}/pipeline_runs", params=inside)).json()["items"]
    assert [run["id"] for run in found] == [made["id"]]
    after = {**inside, "created_at[gte]": "2999-01-01T00:00:00Z"}
    assert (await api.get(f"{V1}/pipeline_runs", params=after)).json()["items"] == []
    naive = await api.get(f"{V1}/pipeline_runs", params={"created_at[lt]": "2020-05-01T00:00:00"})
    assert naive.status_code == 422
