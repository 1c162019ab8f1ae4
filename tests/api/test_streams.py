"""Logs and events as server-sent events, over a real socket: httpx's ASGI transport buffers."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from app.server import listen
from tests.api.conftest import app_on

V1 = "/api/v1"

FILES = {
    "metadata.yaml": "name: talk\n",
    "pipelines/talk/metadata.yaml": "blocks:\n- {uuid: say, type: custom, upstream_blocks: []}\n",
    "custom/say.py": (
        "import pathlib, time\n@custom\ndef f(*args, **kwargs):\n"
        "    for n in range(kwargs.get('lines', 5)):\n        print('line', n, flush=True)\n"
        "        time.sleep(kwargs.get('pause', 0))\n"
        "    while kwargs.get('until') and not pathlib.Path(kwargs['until']).exists():\n        time.sleep(0.02)\n"
    ),
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "talk" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "talk"


@contextlib.asynccontextmanager
async def on_socket(project: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application behind a real socket."""
    app = app_on(project)
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None, timeout_graceful_shutdown=1))
    with contextlib.closing(listen("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        async with app.router.lifespan_context(app), asyncio.TaskGroup() as group:
            group.create_task(server.serve([listener]))
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                yield client
            server.should_exit = True


async def frames(answer: httpx.Response) -> AsyncIterator[dict[str, str]]:
    """The frames of a stream as mappings; comments are left out."""
    frame: dict[str, str] = {}
    async for line in answer.aiter_lines():
        if not line:
            if frame:
                yield frame
            frame = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            frame[name] = value


async def start(api: httpx.AsyncClient, **variables: Any) -> int:
    answer = await api.post(f"{V1}/pipelines/talk/pipeline_runs", json={"variables": variables})
    return int(answer.json()["id"])


async def read(
    api: httpx.AsyncClient, url: str, stop_after: int = 10_000, **headers: str
) -> tuple[list[dict[str, str]], bool]:
    """Frames of a stream, and whether it ended by itself with `end`."""
    found: list[dict[str, str]] = []
    async with api.stream("GET", url, headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        async for frame in frames(answer):
            if frame.get("event") == "end":
                return found, True
            found.append(frame)
            if len(found) >= stop_after:
                break
    return found, False


async def test_lines_come_while_the_block_runs_and_the_stream_ends_with_the_run(
    project: Path, tmp_path: Path
) -> None:
    flag = tmp_path / "go"
    async with on_socket(project) as api:
        run_id = await start(api, until=str(flag))
        first, _ = await read(api, f"{V1}/pipeline_runs/{run_id}/logs?follow=true", stop_after=5)
        assert [json.loads(f["data"])["text"] for f in first] == [f"line {n}" for n in range(5)]
        status = (await api.get(f"{V1}/pipeline_runs/{run_id}")).json()["status"]
        assert status == "running", "the lines came before the end"
        flag.touch()
        rest, ended = await read(
            api, f"{V1}/pipeline_runs/{run_id}/logs?follow=true", **{"Last-Event-ID": first[2]["id"]}
        )
        assert ended
        assert [json.loads(f["data"])["text"] for f in rest] == ["line 3", "line 4"]


async def test_a_stream_may_be_asked_for_by_its_media_type(project: Path) -> None:
    async with on_socket(project) as api:
        run_id = await start(api)
        found, ended = await read(api, f"{V1}/pipeline_runs/{run_id}/logs", Accept="text/event-stream")
        assert ended
        assert len(found) == 5


async def test_events_come_in_order_and_can_be_resumed(project: Path) -> None:
    async with on_socket(project) as api:
        run_id = await start(api)
        url = f"{V1}/pipeline_runs/{run_id}/events"
        found, ended = await read(api, f"{url}?follow=true")
        kinds = [json.loads(f["data"])["type"] for f in found]
        assert ended
        assert kinds == ["run_created", "run_started", "block_started", "block_ended", "run_ended"]
        rest, _ = await read(api, f"{url}?follow=true", **{"Last-Event-ID": found[2]["id"]})
        assert [f["id"] for f in rest] == [f["id"] for f in found[3:]]
        page = (await api.get(url, params={"limit": 2})).json()
        more = (await api.get(url, params={"cursor": page["next_cursor"]})).json()
        assert [e["type"] for e in page["items"] + more["items"]] == kinds
        assert more["next_cursor"] is None


async def test_a_wrong_position_is_a_problem(project: Path) -> None:
    async with on_socket(project) as api:
        run_id = await start(api)
        for path in ("logs", "events"):
            answer = await api.get(
                f"{V1}/pipeline_runs/{run_id}/{path}",
                params={"follow": "true"},
                headers={"Last-Event-ID": "x"},
            )
            assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
        assert (await api.get(f"{V1}/pipeline_runs/77/logs?follow=true")).status_code == 404


async def test_many_followers_see_every_line_once(project: Path) -> None:
    async with on_socket(project) as api:
        run_id = await start(api, lines=300)
        url = f"{V1}/pipeline_runs/{run_id}/logs?follow=true"
        for found, ended in await asyncio.gather(*(read(api, url) for _ in range(10))):
            assert ended
            assert [json.loads(f["data"])["text"] for f in found] == [f"line {n}" for n in range(300)]
