"""Triggers by the client, and Mage's `trigger_pipeline` in its documented forms."""

import inspect

import pytest

import runwright.client
from app import client as package
from app.client import (
    AsyncClient,
    Changed,
    Client,
    Conflict,
    NotFound,
    RunFailed,
    WaitTimeout,
    trigger_pipeline,
)
from tests.client.conftest import QUICK, Proxy, Service


def test_a_trigger_is_made_changed_paused_resumed_and_taken_away(client: Client) -> None:
    made = client.create_schedule(
        "hello", "nightly", schedule_type="time", schedule_interval="@daily", variables={"name": "Ada"}
    )
    assert (made.managed_by, made.token, made.variables) == ("api", None, {"name": "Ada"})
    changed = client.update_schedule(made.id, revision=made.revision, description="at night")
    assert (changed.description, changed.revision) == ("at night", made.revision + 1)
    with pytest.raises(Changed) as caught:
        client.update_schedule(made.id, revision=made.revision, description="never")
    assert caught.value.status == 412
    assert client.pause(made.id).status == "inactive"
    assert client.resume(made.id).status == "active"
    assert client.schedule(made.id).description == "at night"
    assert [found.id for found in client.schedules(name="nightly", status="active")] == [made.id]
    assert list(client.slots(made.id)) == []
    client.delete_schedule(made.id)
    with pytest.raises(NotFound):
        client.schedule(made.id)


def test_a_trigger_is_started_by_hand(client: Client) -> None:
    made = client.create_schedule("hello", "by hand", schedule_type="api", variables={"name": "Ada"})
    assert made.token and client.rotate_token(made.id) not in ("", made.token)
    run = client.wait(client.trigger(made.id, {"more": 1}).id, timeout=30)
    assert (run.status, run.pipeline_schedule_id) == ("completed", made.id)
    assert run.variables["name"] == "Ada" and run.variables["more"] == 1
    client.delete_schedule(made.id)


def test_a_trigger_of_a_file_is_changed_there(client: Client) -> None:
    yearly = next(client.schedules(name="yearly"))
    with pytest.raises(Conflict) as caught:
        client.pause(yearly.id)
    assert caught.value.code == "managed_by_file" and "triggers.yaml" in caught.value.hint


def test_a_deletion_whose_answer_was_lost_is_done(client: Client, proxy: Proxy) -> None:
    made = client.create_schedule("hello", "lost", schedule_type="api")
    proxy.faults.append("lose")
    with Client(proxy.url, retries=QUICK) as flaky:
        flaky.delete_schedule(made.id)
    with pytest.raises(NotFound):
        client.delete_schedule(made.id)


def test_it_starts_a_pipeline_and_does_not_wait(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNWRIGHT_URL", service.url)
    pipeline_run = trigger_pipeline(
        pipeline_uuid="hello",
        variables={"env": "production"},
        check_status=False,  # Don't wait for completion
    )
    assert pipeline_run.pipeline_uuid == "hello" and pipeline_run.id > 0
    assert pipeline_run.status in ("initial", "running", "completed")
    assert pipeline_run.variables == {"env": "production"} and pipeline_run.execution_date.tzinfo
    assert [block.block_uuid for block in pipeline_run.block_runs or ()] == ["greet", "shout"]


def test_it_waits_and_notices_the_end_when_it_comes(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RUNWRIGHT_URL", service.url)
    pipeline_run = trigger_pipeline(
        pipeline_uuid="hello",
        variables={"date": "2024-01-01"},
        check_status=True,
        poll_interval=60,  # Check every 60 seconds
        error_on_failure=True,
    )
    assert pipeline_run.status == "completed"
    said = capsys.readouterr().out
    assert said in ("", f"Pipeline run {pipeline_run.id} for pipeline hello: running\n")


def test_a_failed_run_is_an_error_where_that_is_wished(client: Client) -> None:
    with pytest.raises(RunFailed, match="broken_code: failed") as caught:
        client.trigger_pipeline("broken_code", check_status=True, error_on_failure=True, verbose=False)
    assert caught.value.run.status == "failed"
    assert client.trigger_pipeline("broken_code", check_status=True, verbose=False).status == "failed"


def test_waiting_has_an_end(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(WaitTimeout) as caught:
        client.trigger_pipeline("slow", check_status=True, poll_interval=0.1, poll_timeout=0.3)
    run = caught.value.run
    assert f"Pipeline run {run.id} for pipeline slow: running\n" in capsys.readouterr().out
    client.cancel(run.id)


async def test_a_schedule_name_finds_or_makes_an_api_trigger(client: Client, service: Service) -> None:
    async with AsyncClient(service.url, retries=QUICK) as other:
        first = await other.trigger_pipeline("hello", schedule_name="from code")
        second = await other.trigger_pipeline("hello", schedule_name="from code")
    assert first.pipeline_schedule_id == second.pipeline_schedule_id is not None
    made = client.schedule(first.pipeline_schedule_id or 0)
    assert (made.name, made.schedule_type, made.status) == ("from code", "api", "active")
    client.delete_schedule(made.id)


def test_the_signature_is_the_documented_one() -> None:
    assert str(inspect.signature(trigger_pipeline)).startswith(
        "(pipeline_uuid: str, variables: collections.abc.Mapping[str, typing.Any] | None = None, "
        "check_status: bool = False, error_on_failure: bool = False, poll_interval: float = 60, "
        "poll_timeout: float | None = None, schedule_name: str | None = None, verbose: bool = True)"
    )


def test_runwright_client_is_the_same() -> None:
    assert runwright.client.__all__ == package.__all__
    assert all(getattr(runwright.client, name) is getattr(package, name) for name in package.__all__)
