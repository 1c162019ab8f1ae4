"""The methods of the client against the real service over a socket, blocking and on an event loop."""

import inspect
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from app.client import AsyncClient, Client, ClientError, Denied, Invalid, NotFound, Unreachable, WaitTimeout
from app.client.api import Api
from app.client.flow import call, stream
from tests.api.conftest import app_on
from tests.api.project import make_project
from tests.client.conftest import QUICK, Service

KEY = "k" * 32


def test_a_run_is_started_waited_for_and_read(client: Client) -> None:
    when = datetime(2026, 1, 31, 8, tzinfo=UTC)
    started = client.launch("hello", {"name": "Ada", "at": when}, execution_date=when)
    run = client.wait(started.id, timeout=30)
    assert (run.status, run.execution_date, run.cause) == ("completed", when, "api")
    assert run.variables == {"name": "Ada", "at": "2026-01-31T08:00:00Z"}
    assert [block.block_uuid for block in run.block_runs or ()] == ["greet", "shout"]
    assert [line.text for line in client.follow_logs(run.id)] == ["hello Ada", "shouting HELLO ADA"]
    assert client.run(run.id) == run
    assert client.cancel(run.id) == run  # over: unchanged


async def test_the_same_on_an_event_loop(service: Service) -> None:
    async with AsyncClient(service.url, retries=QUICK) as client:
        started = await client.launch("hello", {"name": "Grace"})
        run = await client.wait(started.id, timeout=30)
        assert run.status == "completed"
        lines = [line.text async for line in client.follow_logs(run.id)]
        assert lines == ["hello Grace", "shouting HELLO GRACE"]
        assert [found.id async for found in client.runs(limit=1)] == [run.id]
        with pytest.raises(NotFound):
            await client.pipeline("nobody")


def test_lists_hide_their_pages(client: Client) -> None:
    found = {pipeline.uuid: pipeline.status for pipeline in client.pipelines()}
    assert found["hello"] == "ok" and found["invalid"] == "invalid"
    assert client.pipeline("hello").blocks[0].downstream_blocks == ["shout"]
    ids = [client.launch("hello").id for _ in range(3)]
    assert [run.id for run in client.runs(pipeline_uuid="hello", limit=2)] == ids[:0:-1]
    assert {trigger.name for trigger in client.schedules(status=["active"])} >= {"yearly"}


def test_a_run_that_goes_on_is_waited_for_in_vain_and_cancelled(client: Client) -> None:
    run = client.launch("slow")
    with pytest.raises(WaitTimeout, match="is still") as caught:
        client.wait(run.id, timeout=0.05)
    assert caught.value.run.id == run.id
    client.cancel(run.id)
    assert client.wait(run.id, timeout=30).status == "cancelled"


def test_an_error_carries_the_problem(client: Client) -> None:
    with pytest.raises(NotFound) as caught:
        client.launch("hallo")
    error = caught.value
    assert (error.code, error.status) == ("pipeline_not_found", 404)
    assert "hallo" in error.detail and "hello" in error.hint
    assert error.problem.instance == "/api/v1/pipelines/hallo/pipeline_runs" and error.problem.request_id
    with pytest.raises(Invalid) as invalid:
        list(client.runs(status="gone"))
    assert invalid.value.errors[0].pointer.startswith("status")
    with pytest.raises(NotFound):
        list(client.follow_logs(2**40))


def test_address_and_key_come_from_the_environment(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNWRIGHT_URL", service.url + "/")
    with Client() as client:
        assert client.pipeline("hello").name == "Hello"


@pytest.mark.parametrize("wrong", ["", "rw_wrong"])
async def test_a_service_with_a_key_wants_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    transport = httpx.ASGITransport(app_on(make_project(tmp_path), admin_key=KEY))
    async with AsyncClient("http://localhost:8000", wrong, transport=transport) as client:
        with pytest.raises(Denied) as caught:
            await client.pipeline("hello")
        assert (caught.value.status, caught.value.code) == (401, "unauthorized")
    monkeypatch.setenv("RUNWRIGHT_API_KEY", KEY)
    async with AsyncClient("http://localhost:8000", transport=transport) as client:
        with pytest.raises(NotFound):  # the door is passed; the engine does not run, and knows no pipeline
            await client.pipeline("hello")


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://localhost", "http://", "http://a:b", "nonsense"])
def test_what_is_no_address_is_refused_at_once(url: str) -> None:
    with pytest.raises(ClientError, match="address"):
        Client(url)


def test_nobody_there_is_unreachable() -> None:
    with (
        Client("http://127.0.0.1:1", retries=QUICK) as client,
        pytest.raises(Unreachable, match=":1/api/v1/"),
    ):
        client.run(1)


def test_every_method_is_told_once_and_both_clients_have_it(service: Service) -> None:
    methods = {name: found for name, found in vars(Api).items() if isinstance(found, call | stream)}
    assert len(methods) >= 15
    for method in methods.values():
        assert method.__doc__
    with Client(service.url) as client:
        assert list(inspect.signature(client.wait).parameters) == ["run_id", "timeout"]
        assert client.wait.__doc__ == Api.wait.__doc__
