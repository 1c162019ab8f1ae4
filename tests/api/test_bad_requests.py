"""Bad input, case by case: a documented problem, and nothing is created."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.conftest import app_on, serving
from tests.api.project import make_project

pytestmark = pytest.mark.asyncio(loop_scope="module")

RUNS = "/api/v1/pipelines/hello/pipeline_runs"
JSON = {"content-type": "application/json"}
PROBLEM_KEYS = {"type", "title", "status", "detail", "instance", "code", "request_id"}


@dataclass(frozen=True)
class Case:
    status: int
    code: str
    method: str = "POST"
    path: str = RUNS
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    pointer: str | None = None


def body(text: bytes, status: int, code: str = "invalid_input", pointer: str | None = None) -> Case:
    return Case(status, code, body=text, headers=JSON, pointer=pointer)


def get(path: str, status: int, code: str = "invalid_input", pointer: str | None = None) -> Case:
    return Case(status, code, method="GET", path=path, pointer=pointer)


CASES = {
    "unknown pipeline": Case(404, "pipeline_not_found", path="/api/v1/pipelines/nope/pipeline_runs"),
    "invalid pipeline": Case(422, "pipeline_invalid", path="/api/v1/pipelines/invalid/pipeline_runs"),
    "traversal": Case(404, "pipeline_not_found", path="/api/v1/pipelines/..%5c..%5cetc/pipeline_runs"),
    "encoded slash": Case(404, "unknown_path", path="/api/v1/pipelines/..%2f..%2fetc/pipeline_runs"),
    "NUL in the path": Case(404, "pipeline_not_found", path="/api/v1/pipelines/a%00b/pipeline_runs"),
    "naive time": body(b'{"execution_date": "2026-01-31T08:00:00"}', 422, pointer="/execution_date"),
    "time as a number": body(b'{"execution_date": 1770000000}', 422, pointer="/execution_date"),
    "date alone": body(b'{"execution_date": "2026-01-31"}', 422, pointer="/execution_date"),
    "no such day": body(b'{"execution_date": "2026-02-30T00:00:00Z"}', 422, pointer="/execution_date"),
    "year 1": body(b'{"execution_date": "0001-01-01T00:00:00+14:00"}', 422, pointer="/execution_date"),
    "year 9999": body(b'{"execution_date": "9999-12-31T23:00:00-14:00"}', 422, pointer="/execution_date"),
    "unknown field": body(b'{"variabels": {}}', 422, pointer="/variabels"),
    "field of a later feature": body(b'{"delay_s": 5}', 422, pointer="/delay_s"),
    "wrong type": body(b'{"skip_sensors": "yes"}', 422, pointer="/skip_sensors"),
    "number as text": body(b'{"priority": "1"}', 422, pointer="/priority"),
    "priority out of range": body(b'{"priority": 5000}', 422, pointer="/priority"),
    "variables no object": body(b'{"variables": [1]}', 422, pointer="/variables"),
    "body no object": body(b"[]", 422, pointer=""),
    "unknown block": body(b'{"block_uuid": "nope"}', 422, "unknown_block"),
    "not JSON": body(b"{nope", 400, "malformed_json"),
    "not UTF-8": body(b'{"variables": {"a": "\xff"}}', 400, "malformed_json"),
    "NaN": body(b'{"variables": {"a": NaN}}', 400, "malformed_json"),
    "NUL in a variable": body(b'{"variables": {"a": "\\u0000"}}', 422, pointer=""),
    "lone surrogate": body(b'{"variables": {"a": "\\ud800"}}', 422, pointer=""),
    "duplicate key": body(b'{"variables": {"a": 1, "a": 2}}', 422, pointer=""),
    "huge number": body(b'{"variables": {"a": 9223372036854775808}}', 422, pointer=""),
    "too deep": body(b'{"variables": ' + b'{"a": ' * 70 + b"1" + b"}" * 71, 422, pointer=""),
    "100,000 brackets": body(b"[" * 100_000, 422, pointer=""),
    "variables too large": body(b'{"variables": {"a": "' + b"x" * 70_000 + b'"}}', 422),
    "oversize": body(b'"' + b"x" * 1_048_576 + b'"', 413, "body_too_large"),
    "a form": Case(
        415,
        "unsupported_media_type",
        body=b"variables=1",
        headers={"content-type": "application/x-www-form-urlencoded"},
    ),
    "no content type": Case(415, "unsupported_media_type", body=b"{}"),
    "another charset": Case(
        415,
        "unsupported_media_type",
        body=b"{}",
        headers={"content-type": "application/json; charset=utf-16"},
    ),
    "a compressed body": Case(
        415, "unsupported_media_type", body=b"{}", headers={**JSON, "content-encoding": "gzip"}
    ),
    "wrong host": Case(421, "wrong_host", headers={"host": "evil.example"}),
    "foreign origin": Case(403, "forbidden", headers={"origin": "https://evil.example"}),
    "an origin that hides": Case(403, "forbidden", headers={"origin": "null"}),
    "wait too long": Case(422, "invalid_input", headers={"prefer": "wait=61"}, pointer="Prefer"),
    "wait no number": Case(422, "invalid_input", headers={"prefer": "wait=soon"}, pointer="Prefer"),
    "idempotency key": Case(
        422, "invalid_input", headers={"idempotency-key": "a b"}, pointer="Idempotency-Key"
    ),
    "query on a POST": Case(422, "invalid_input", path=RUNS + "?variables=1", pointer="variables"),
    "body for a cancel": Case(
        422,
        "invalid_input",
        path="/api/v1/pipeline_runs/1/cancel",
        body=b'{"force": true}',
        headers=JSON,
        pointer="/force",
    ),
    "cancel of nothing": Case(404, "run_not_found", path="/api/v1/pipeline_runs/987654321/cancel"),
    "unknown path": get("/api/v1/nope", 404, "unknown_path"),
    "trailing slash": get("/api/v1/pipelines/", 404, "unknown_path"),
    "unknown run": get("/api/v1/pipeline_runs/987654321", 404, "run_not_found"),
    "log of an unknown run": get("/api/v1/pipeline_runs/987654321/logs", 404, "run_not_found"),
    "unknown block run": get("/api/v1/block_runs/987654321", 404, "not_found"),
    "unknown trigger": get("/api/v1/pipeline_schedules/987654321", 404, "schedule_not_found"),
    "id no number": get("/api/v1/pipeline_runs/abc", 422, pointer="run_id"),
    "id with a fraction": get("/api/v1/pipeline_runs/1.0", 422, pointer="run_id"),
    "id beyond int64": get("/api/v1/pipeline_runs/9223372036854775808", 422, pointer="run_id"),
    "id in other digits": get("/api/v1/pipeline_runs/%D9%A1", 422, pointer="run_id"),
    "negative id": get("/api/v1/pipeline_schedules/-1", 422, pointer="schedule_id"),
    "unknown parameter": get("/api/v1/pipeline_runs?pipeline=hello", 422, pointer="pipeline"),
    "parameter on a probe": get("/livez?verbose=1", 422, pointer="verbose"),
    "parameter twice": get("/api/v1/pipeline_runs?limit=1&limit=2", 422, pointer="limit"),
    "limit 0": get("/api/v1/pipeline_runs?limit=0", 422, pointer="limit"),
    "limit 201": get("/api/v1/pipelines?limit=201", 422, pointer="limit"),
    "unknown status": get("/api/v1/pipeline_runs?status=done", 422, pointer="status"),
    "unknown cause": get("/api/v1/pipeline_runs?cause=luck", 422, pointer="cause"),
    "made-up cursor": get("/api/v1/pipeline_runs?cursor=42", 422, pointer="cursor"),
    "cursor of another list": get("/api/v1/pipeline_runs?cursor=c2NoZWR1bGU6MQ", 422, pointer="cursor"),
    "filter with a NUL": get("/api/v1/pipeline_runs?pipeline_uuid=a%00b", 422, pointer="pipeline_uuid"),
    "trigger filter with a NUL": get(
        "/api/v1/pipeline_schedules?pipeline_uuid=%00", 422, pointer="pipeline_uuid"
    ),
    "cursor with a NUL": get("/api/v1/pipelines?cursor=%00", 422, pointer="cursor"),
    "wrong method": Case(405, "method_not_allowed", method="DELETE", path="/api/v1/pipelines"),
    "method of nobody": Case(405, "method_not_allowed", method="BREW", path="/livez"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_bad_input_is_a_problem_and_creates_nothing(api: httpx.AsyncClient, case: Case) -> None:
    before = (await api.get("/api/v1/pipeline_runs")).json()
    answer = await api.request(case.method, case.path, content=case.body, headers=case.headers)
    assert_problem(answer, case.status, case.code)
    if case.pointer is not None:
        assert case.pointer in [fault["pointer"] for fault in answer.json()["errors"]]
    assert (await api.get("/api/v1/pipeline_runs")).json() == before


def assert_problem(answer: httpx.Response, status: int, code: str) -> None:
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code), problem
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem.keys() >= PROBLEM_KEYS
    assert problem["status"] == status and problem["request_id"] == answer.headers["x-request-id"]
    for leak in ("Traceback", "SELECT", "/tmp/", "/site-packages"):
        assert leak not in answer.text


async def test_a_wrong_method_is_told_the_right_ones(api: httpx.AsyncClient) -> None:
    assert (await api.put(RUNS)).headers["allow"] == "POST"
    assert (await api.post("/docs-static/swagger-ui.css")).headers["allow"] == "GET, HEAD"


async def test_a_stream_without_length_is_cut_off(api: httpx.AsyncClient) -> None:
    given = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal given
        while given < 64 * 2**20:
            given += 2**16
            yield b"x" * 2**16

    answer = await api.post(RUNS, content=endless(), headers=JSON)
    assert_problem(answer, 413, "body_too_large")


async def test_an_error_of_ours_says_nothing_about_the_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = app_on(make_project(tmp_path))
    async with serving(app) as client:

        async def broken(*_: Any, **__: Any) -> None:
            raise RuntimeError("SELECT secret FROM /etc/passwd")

        monkeypatch.setattr(app.state.engine, "launch", broken)
        answer = await client.post(RUNS)
    assert_problem(answer, 500, "internal_error")
    assert "passwd" not in answer.text
    assert answer.headers["x-request-id"] in caplog.text and "passwd" in caplog.text


KEY = "open sesame, but long enough, please"
OPEN = ("/livez", "/readyz", "/health", "/openapi.json", "/docs", "/docs-static/swagger-ui.css")


async def test_with_an_admin_key_only_the_public_routes_are_open(tmp_path: Path) -> None:
    app = app_on(make_project(tmp_path), host="0.0.0.0", admin_key=KEY)
    async with serving(app) as client:
        for path in OPEN:
            assert (await client.get(path)).status_code == 200, path
        paths = (await client.get("/openapi.json")).json()["paths"]
        assert paths["/api/v1/pipelines"]["get"]["security"] == [{"bearer": []}, {"apiKey": []}]
        closed = [
            (method.upper(), path.replace("{uuid}", "hello").replace("_id}", "_id}"))
            for path, methods in paths.items()
            for method in methods
            if path not in OPEN and path.startswith("/api/v1/")
        ]
        assert len(closed) >= 10
        for method, template in closed:
            path = "/".join("1" if part.startswith("{") else part for part in template.split("/"))
            for headers in ({}, {"x-api-key": "wrong"}, {"authorization": f"Basic {KEY}"}):
                answer = await client.request(method, path, headers=headers)
                assert_problem(answer, 401, "unauthorized")
                assert answer.headers["www-authenticate"].startswith("Bearer")
        for headers in ({"x-api-key": KEY}, {"authorization": f"Bearer {KEY}"}):
            assert (await client.get("/api/v1/pipelines", headers=headers)).status_code == 200


async def test_a_key_is_asked_for_before_a_body_is_read(tmp_path: Path) -> None:
    app = app_on(make_project(tmp_path), admin_key=KEY)
    async with serving(app) as client:
        answer = await client.post(RUNS, content=b"x" * 2_000_000)
    assert_problem(answer, 401, "unauthorized")
