"""What the client does when the way to the service fails: nothing is lost, and nothing happens twice."""

import httpx
import pytest

from app.client import AsyncClient, Client, Invalid, Retries, Unavailable, Unreachable
from app.client.api import Api
from app.client.flow import Pause, Request
from tests.client.conftest import QUICK, Proxy, Service


@pytest.mark.parametrize("faults", [["refuse"], ["lose"], ["503"], ["502", "504"], ["lose", "refuse", "503"]])
def test_a_launch_that_had_to_be_repeated_starts_one_run(
    client: Client, proxy: Proxy, faults: list[str]
) -> None:
    newest = next(client.runs(limit=1), None)
    proxy.faults.extend(faults)
    with Client(proxy.url, retries=QUICK) as flaky:
        run = flaky.launch("hello", {"name": "once"})
    assert len(proxy.seen) == len(faults) + 1
    keys = {headers["idempotency-key"] for _, _, headers in proxy.seen}
    assert len(keys) == 1 and len(keys.pop()) >= 32
    made = [found.id for found in client.runs(limit=5) if newest is None or found.id > newest.id]
    assert made == [run.id]
    client.wait(run.id, timeout=30)


async def test_the_same_on_an_event_loop(client: Client, proxy: Proxy) -> None:
    proxy.faults.extend(["lose", "503"])
    async with AsyncClient(proxy.url, retries=QUICK) as flaky:
        run = await flaky.launch("hello", {"name": "once"})
        assert (await flaky.wait(run.id, timeout=30)).status == "completed"
    assert [found.id for found in client.runs(limit=1)] == [run.id]


def test_two_calls_are_two_runs_unless_their_key_says_otherwise(client: Client) -> None:
    first, second = client.launch("hello"), client.launch("hello")
    assert first.id != second.id
    mine = [client.launch("hello", {"name": "x"}, idempotency_key="mine").id for _ in range(2)]
    assert mine[0] == mine[1]
    with pytest.raises(Invalid) as caught:
        client.launch("hello", {"name": "y"}, idempotency_key="mine")
    assert caught.value.code == "idempotency_mismatch"


def test_a_retry_after_is_kept(client: Client) -> None:
    """The flow is asked what it would do: nobody has to wait for it."""
    flow = Api.pipeline.flow(client, "hello")
    assert isinstance(next(flow), Request)
    assert flow.send(httpx.Response(503, headers={"Retry-After": "7"})) == Pause(7)
    assert isinstance(flow.send(None), Request)


def test_it_gives_up_in_the_end(proxy: Proxy) -> None:
    few = Retries(count=2, first_s=0.01)
    with Client(proxy.url, retries=few) as flaky:
        proxy.faults.extend(["503"] * 3)
        with pytest.raises(Unavailable) as caught:
            flaky.launch("hello")
        assert caught.value.status == 503 and not proxy.faults
        proxy.faults.extend(["refuse"] * 3)
        with pytest.raises(Unreachable):
            flaky.launch("hello")
        assert not proxy.faults


def test_what_must_not_be_repeated_is_not(proxy: Proxy) -> None:
    """A change that is bound to a revision would look like somebody else's after its own success."""
    proxy.faults.extend(["lose", "lose"])
    with Client(proxy.url, retries=QUICK) as flaky, pytest.raises(Unreachable):
        flaky.update_schedule(1, revision=1, description="x")
    assert list(proxy.faults) == ["lose"]


def test_a_log_that_breaks_off_goes_on_where_it_was(client: Client, proxy: Proxy) -> None:
    run = client.wait(client.launch("talk").id, timeout=30)
    want = [f"line {number}" for number in range(200)]
    proxy.faults.extend(["cut:900", "refuse", "503", "cut:2000", "cut:1"])
    with Client(proxy.url, retries=QUICK) as flaky:
        assert [line.text for line in flaky.follow_logs(run.id)] == want
    resumed = [headers.get("last-event-id") for _, _, headers in proxy.seen]
    assert resumed[0] is None and resumed[1] is not None and len(set(resumed)) >= 3


async def test_an_event_loop_follows_it_as_well(client: Client, proxy: Proxy) -> None:
    run = client.wait(client.launch("talk").id, timeout=30)
    proxy.faults.extend(["cut:900", "refuse", "cut:2000"])
    async with AsyncClient(proxy.url, retries=QUICK) as flaky:
        lines = [line.text async for line in flaky.follow_logs(run.id)]
    assert lines == [f"line {number}" for number in range(200)]


def test_a_log_is_followed_over_kill_and_restart_of_the_service(service: Service, client: Client) -> None:
    run = client.launch("two_parts")
    lines = client.follow_logs(run.id)
    seen = [next(lines), next(lines)]
    assert [line.text for line in seen] == ["part one", "part two begins"]
    service.kill()
    (service.project / "go").touch()
    service.start()
    seen += lines
    assert client.run(run.id).status == "completed"
    assert seen[-1].text == "part two ends"
    assert seen == list(client.follow_logs(run.id))  # none lost, none twice


def test_a_service_without_streams_is_read_page_by_page(client: Client, proxy: Proxy) -> None:
    run = client.wait(client.launch("talk").id, timeout=30)
    proxy.faults.append("406")
    with Client(proxy.url, retries=QUICK) as flaky:
        lines = [line.text for line in flaky.follow_logs(run.id)]
    assert lines == [f"line {number}" for number in range(200)]
    assert len(proxy.seen) >= 2 and "follow" not in proxy.seen[1][1]
