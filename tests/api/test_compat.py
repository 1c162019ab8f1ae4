"""What callers of Mage's API triggers have in their scripts, run as it is: by curl where there is one."""

import asyncio
import contextlib
import json
import logging
import shlex
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from app.server import listen
from tests.api.conftest import app_on
from tests.api.project import make_project
from tests.api.test_bad_requests import KEY
from tests.invariants import assert_hold

MAGES_KEYS = {
    "id",
    "created_at",
    "updated_at",
    "pipeline_schedule_id",
    "pipeline_uuid",
    "execution_date",
    "status",
    "started_at",
    "completed_at",
    "variables",
    "passed_sla",
    "event_variables",
    "metrics",
    "backfill_id",
    "executor_type",
}


@dataclass
class Service:
    """The application behind a real socket, with one API trigger in it."""

    client: httpx.AsyncClient
    port: int
    id: int
    token: str

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}/api/pipeline_schedules/{self.id}"

    async def post(self, path: str, content: bytes | None = None, **headers: str) -> httpx.Response:
        return await self.client.post(f"{self.url}/{path}", content=content, headers=headers)

    async def by_token(self, content: bytes | None = None, **headers: str) -> httpx.Response:
        return await self.post(f"pipeline_runs/{self.token}", content, **headers)


@contextlib.asynccontextmanager
async def serving(project: Path, **given: Any) -> AsyncIterator[Service]:
    app = app_on(make_project(project), **given)
    config = uvicorn.Config(
        app, lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    key = {"X-API-Key": given["admin_key"]} if "admin_key" in given else {}
    with contextlib.closing(listen("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        async with app.router.lifespan_context(app), asyncio.TaskGroup() as group:
            group.create_task(server.serve([listener]))
            try:
                async with httpx.AsyncClient(timeout=30) as client:
                    trigger = {
                        "name": "hook",
                        "pipeline_uuid": "hello",
                        "schedule_type": "api",
                        "status": "active",
                    }
                    url = f"http://localhost:{port}/api/v1/pipeline_schedules"
                    made = (await client.post(url, json=trigger, headers=key)).json()
                    yield Service(client, port, made["id"], made["token"])
                    await assert_hold(app.state.engine.db)
            finally:
                server.should_exit = True


# Lines of scripts that start pipelines in Mage, with its documentation's and its page's own among them.
CURL = {
    "page": """curl -X POST {url}/pipeline_runs/{token}
        --header 'Content-Type: application/json'
        --data '{{"pipeline_run": {{"variables": {{"name": "ada"}}}}}}'""",
    "bearer": """curl --location --request POST '{url}/api_trigger'
        --header 'Content-Type: application/json' --header 'Authorization: Bearer {token}'
        --data-raw '{{"pipeline_run": {{"variables": {{"name": "ada"}}}}}}'""",
    "no content type": """curl -d '{{"pipeline_run": {{"variables": {{"name": "ada"}}}}}}'
        {url}/pipeline_runs/{token}""",
    "odd content type": """curl -H 'Content-Type: text/plain; charset=latin1'
        -d '{{"pipeline_run": {{"variables": {{"name": "ada"}}}}}}' {url}/pipeline_runs/{token}""",
    "a query of theirs": """curl -d '{{"pipeline_run": {{"variables": {{"name": "ada"}}}}}}'
        '{url}/pipeline_runs/{token}?api_key=zkWlN0PkIKSN0C11CfUHUj84OT5XOJ6tDZ6bDRO2&x=1&x=2'""",
    "with both keys": """curl -H 'X-API-KEY: zkWlN0PkIKSN0C11CfUHUj84OT5XOJ6tDZ6bDRO2'
        -H 'authorization: bearer {token}' -d '{{"pipeline_run": {{"variables": {{"name": "ada"}}}}}}'
        {url}/api_trigger""",
}
EMPTY = {
    "nothing": "curl -X POST {url}/pipeline_runs/{token}",
    "no bytes": "curl -X POST -d '' {url}/pipeline_runs/{token}",
    "null": "curl -d null {url}/pipeline_runs/{token}",
    "empty object": "curl -d '{{}}' {url}/pipeline_runs/{token}",
    "empty run": """curl -d '{{"pipeline_run": {{}}}}' {url}/pipeline_runs/{token}""",
    "nulls": """curl -d '{{"pipeline_run": {{"variables": null, "execution_date": null}}}}'
        {url}/pipeline_runs/{token}""",
    "bearer alone": "curl -X POST -H 'Authorization: Bearer {token}' {url}/api_trigger",
}


async def curl(line: str, service: Service) -> tuple[int, Any]:
    """Run a line of a caller's script; the status and the JSON that it got."""
    words = shlex.split(" ".join(line.split()).format(url=service.url, token=service.token))
    if shutil.which("curl") is None:
        return await _as_curl(words[1:])
    process = await asyncio.create_subprocess_exec(
        *words, "--silent", "--write-out", "\n%{http_code}", stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    body, _, status = output.decode().rpartition("\n")
    return int(status), json.loads(body)


async def _as_curl(words: list[str]) -> tuple[int, Any]:
    """The request that curl would send for these words, over a socket."""
    url, data, headers = "", None, {"Content-Type": "application/x-www-form-urlencoded"}
    rest = iter(words)
    for word in rest:
        if word in ("-H", "--header"):
            name, _, value = next(rest).partition(": ")
            headers = {k: v for k, v in headers.items() if k.lower() != name.lower()} | {name: value}
        elif word in ("-d", "--data", "--data-raw"):
            data = next(rest)
        elif word in ("-X", "--request"):
            next(rest)
        elif not word.startswith("-"):
            url = word
    if data is None:
        del headers["Content-Type"]
    async with httpx.AsyncClient() as client:
        answer = await client.post(url, content=data, headers=headers)
    return answer.status_code, answer.json()


async def test_the_lines_of_a_caller_of_mage_start_runs(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        seen = set()
        for name, line in {**CURL, **EMPTY}.items():
            status, answer = await curl(line, service)
            assert status == 200, (name, answer)
            assert answer.keys() == {"pipeline_run"}, name
            run = answer["pipeline_run"]
            assert run.keys() == MAGES_KEYS, name
            assert run["status"] in ("initial", "running"), name
            assert (run["pipeline_schedule_id"], run["pipeline_uuid"]) == (service.id, "hello"), name
            assert run["variables"] == ({"name": "ada"} if name in CURL else {}), name
            assert (run["backfill_id"], run["passed_sla"]) == (None, False)
            assert (run["event_variables"], run["metrics"], run["executor_type"]) == ({}, {}, "local_python")
            seen.add(run["id"])
        assert len(seen) == len(CURL) + len(EMPTY)


async def test_a_naive_time_is_utc_and_other_keys_are_event_variables(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        line = """curl -d '{{"pipeline_run": {{"execution_date": "2024-01-01T06:30:00", "variables": {{"n": 1}}}},
            "commit": "abc", "nested": {{"a": [1]}}}}' {url}/pipeline_runs/{token}"""
        status, answer = await curl(line, service)
        run = answer["pipeline_run"]
        assert (status, run["execution_date"]) == (200, "2024-01-01T06:30:00Z")
        assert run["event_variables"] == {"commit": "abc", "nested": {"a": [1]}}
        for text, expected in (
            ("2024-01-01", "2024-01-01T00:00:00Z"),
            ("2024-01-01 06:30", "2024-01-01T06:30:00Z"),
            ("2024-01-01T06:30:00.5", "2024-01-01T06:30:00.500000Z"),
            ("2024-01-01T06:30:00+02:00", "2024-01-01T04:30:00Z"),
            ("2024-01-01T06:30:00Z", "2024-01-01T06:30:00Z"),
        ):
            body = json.dumps({"pipeline_run": {"execution_date": text}}).encode()
            assert (await service.by_token(body)).json()["pipeline_run"]["execution_date"] == expected


async def test_a_block_sees_what_the_caller_sent(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        (tmp_path / "data_loaders" / "greet.py").write_text(
            "@data_loader\ndef greet(*args, **kwargs):\n"
            "    print('saw', kwargs['name'], kwargs['event']['commit'], kwargs['commit'], kwargs['ds'])\n"
            "    return 'x'\n"
        )
        body = {
            "pipeline_run": {"variables": {"name": "ada"}, "execution_date": "2024-02-29T23:59:00"},
            "commit": "abc",
        }
        answer = await service.by_token(json.dumps(body).encode())
        run_id = answer.json()["pipeline_run"]["id"]
        api = f"http://localhost:{service.port}/api/v1/pipeline_runs/{run_id}"
        async with asyncio.timeout(30):
            while (await service.client.get(api)).json()["completed_at"] is None:
                await asyncio.sleep(0.05)
        lines = (await service.client.get(f"{api}/logs")).json()["items"]
        assert "saw ada abc abc 2024-02-29" in [line["text"] for line in lines]


BAD = {
    "not JSON": (b"name=ada", 400, "malformed_json"),
    "not UTF-8": (b'{"a": "\xff"}', 400, "malformed_json"),
    "a list": (b"[]", 422, "invalid_input"),
    "run is a list": (b'{"pipeline_run": []}', 422, "invalid_input"),
    "variables are text": (b'{"pipeline_run": {"variables": "a=1"}}', 422, "invalid_input"),
    "unknown field": (b'{"pipeline_run": {"variabels": {}}}', 422, "invalid_input"),
    "no date": (b'{"pipeline_run": {"execution_date": "tomorrow"}}', 422, "invalid_input"),
    "date as a number": (b'{"pipeline_run": {"execution_date": 1704067200}}', 422, "invalid_input"),
    "year 1": (b'{"pipeline_run": {"execution_date": "0001-01-01T00:00:00+14:00"}}', 422, "invalid_input"),
    "NUL in a variable": (b'{"pipeline_run": {"variables": {"a": "\\u0000"}}}', 422, "invalid_input"),
    "NUL in an event": (b'{"a": "\\u0000"}', 422, "invalid_input"),
    "lone surrogate": (b'{"a": "\\ud800"}', 422, "invalid_input"),
    "huge number": (b'{"a": 9223372036854775808}', 422, "invalid_input"),
    "NaN": (b'{"a": NaN}', 400, "malformed_json"),
    "duplicate key": (b'{"a": 1, "a": 2}', 422, "invalid_input"),
    "too deep": (b'{"a": ' * 70 + b"1" + b"}" * 70, 422, "invalid_input"),
    "deeper than a run keeps": (b'{"a": ' * 40 + b"1" + b"}" * 40, 422, "invalid_input"),
    "large event": (b'{"a": "' + b"x" * 70_000 + b'"}', 422, "invalid_input"),
    "large variables": (
        b'{"pipeline_run": {"variables": {"a": "' + b"x" * 70_000 + b'"}}}',
        422,
        "invalid_input",
    ),
    "oversize": (b'"' + b"x" * 1_048_576 + b'"', 413, "body_too_large"),
}


async def test_bad_bodies_are_problems_and_start_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        for name, (body, status, code) in BAD.items():
            answer = await service.by_token(body)
            assert (answer.status_code, answer.json()["code"]) == (status, code), (name, answer.text)
            assert service.token not in answer.text, name
        answer = await service.by_token(b"{}", Origin="https://evil.example")
        assert answer.status_code == 403
        runs = await service.client.get(f"http://localhost:{service.port}/api/v1/pipeline_runs")
        assert runs.json()["items"] == []


async def test_one_answer_for_every_caller_who_has_no_open_trigger(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        token, base = service.token, f"http://localhost:{service.port}/api"
        yearly = (await service.client.get(f"{base}/v1/pipeline_schedules?name=yearly")).json()["items"][0]
        bearer = {"Authorization": f"Bearer {token}"}
        asked: list[tuple[str, dict[str, str]]] = [
            (f"{service.id}/pipeline_runs/{token[:-1]}", {}),
            (f"{service.id}/pipeline_runs/{token}x", {}),
            (f"{service.id}/pipeline_runs/%00", {}),
            (f"{service.id}/pipeline_runs/%ff%fe", bearer),
            (f"{service.id}/pipeline_runs/x", bearer),
            (f"{service.id}/api_trigger", {}),
            (f"{service.id}/api_trigger", {"Authorization": f"Basic {token}"}),
            (
                f"{service.id}/api_trigger",
                {"Authorization": "Bearer \xff".encode("latin-1").decode("latin-1")},
            ),
            (f"{service.id}/api_trigger", {"X-API-Key": token}),
            (f"987654321/pipeline_runs/{token}", {}),
            (f"{2**63}/pipeline_runs/{token}", {}),
            (f"-1/pipeline_runs/{token}", {}),
            (f"0{'0' * 30}/pipeline_runs/{token}", {}),
            (f"hook/pipeline_runs/{token}", {}),
            (f"%D9%A1/pipeline_runs/{token}", {}),
            (f"{yearly['id']}/pipeline_runs/{token}", {}),
            (f"{yearly['id']}/api_trigger", bearer),
        ]
        answers = [
            await _post(service, f"{base}/pipeline_schedules/{path}", headers) for path, headers in asked
        ]
        url = f"{base}/v1/pipeline_schedules/{service.id}"
        await service.client.post(f"{url}/pause")
        answers.append(await service.by_token())
        await service.client.post(f"{url}/resume")
        new = (await service.client.post(f"{url}/rotate_token")).json()["token"]
        answers.append(await service.by_token())
        assert (await service.post(f"pipeline_runs/{new}")).status_code == 200
        await service.client.delete(url)
        answers.append(await service.post(f"pipeline_runs/{new}"))
        said = [{**answer.json(), "instance": "", "request_id": ""} for answer in answers]
        assert said == [said[0]] * len(said)
        assert (said[0]["status"], said[0]["code"]) == (404, "not_found")
        assert {answer.status_code for answer in answers} == {404}
        for answer in answers:
            assert token not in answer.text and token not in str(answer.headers)


async def _post(service: Service, url: str, headers: dict[str, str]) -> httpx.Response:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    return await service.client.post(url, headers=raw)


async def test_the_token_is_the_credential_even_where_a_key_is_asked_for(tmp_path: Path) -> None:
    async with serving(tmp_path, admin_key=KEY) as service:
        assert (await service.by_token()).status_code == 200
        bearer = {"Authorization": f"Bearer {service.token}"}
        assert (await service.post("api_trigger", **bearer)).status_code == 200
        with_key = await service.post("api_trigger", **{"Authorization": f"Bearer {KEY}"})
        assert with_key.status_code == 404, "the administrator's key is no token"
        as_key = await service.client.get(f"http://localhost:{service.port}/api/v1/pipelines", headers=bearer)
        assert as_key.status_code == 401, "and a token is no key"


async def test_a_repeated_call_with_a_key_starts_one_run(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        key = {"Idempotency-Key": "deploy-7"}
        answers = await asyncio.gather(*(service.by_token(b'{"n": 1}', **key) for _ in range(5)))
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.json()["pipeline_run"]["id"] for answer in answers}) == 1
        other = await service.by_token(b'{"n": 2}', **key)
        assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")


async def test_the_token_is_in_no_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    # The test's own client says every URL that it asks for.
    for name in ("httpx", "httpcore"):
        monkeypatch.setattr(logging.getLogger(name), "disabled", True)
    async with serving(tmp_path) as service:
        await service.by_token()
        await service.by_token(b"{nope")
        await service.post(f"pipeline_runs/{service.token}/")
        await service.by_token(Host="evil.example")
        monkeypatch.setattr("app.scheduler.mage_payload.read", _broken)
        broken = await service.by_token()
        assert broken.status_code == 500
        assert "as planned" in caplog.text, "the log is looked at"
        assert service.token not in caplog.text and service.token not in broken.text


def _broken(payload: object) -> None:
    raise RuntimeError("as planned")
