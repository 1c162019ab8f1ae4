"""Previews, explanations, missed slots and the pause of everything, by both clients."""

from datetime import UTC, datetime, timedelta

import pytest

from app.client import AsyncClient, Client, Invalid, NotFound
from tests.client.conftest import QUICK, Service

AT = datetime(2099, 1, 1, tzinfo=UTC)


def test_a_definition_is_looked_at_before_it_is_made(client: Client) -> None:
    found = client.preview_schedule(
        "30 2 * * *", timezone="Europe/Berlin", after=datetime(2026, 3, 28, tzinfo=UTC), count=2
    )
    assert found.in_words == "at 02:30 every day"
    assert [slot.execution_date.isoformat() for slot in found.items] == [
        "2026-03-28T02:30:00+01:00",
        "2026-03-29T03:00:00+02:00",
    ]
    assert found.clock_changes[0].code == "dst_moved"
    with pytest.raises(Invalid) as caught:
        client.preview_schedule("@daily", settings={"dst_gap": "later"})
    assert [fault.pointer for fault in caught.value.errors] == ["/settings/dst_gap"]


def test_triggers_and_runs_are_explained(client: Client) -> None:
    made = client.create_schedule(
        "hello", "explained here", schedule_type="time", schedule_interval="@daily", status="active"
    )
    found = client.explain_schedule(made.id, AT)
    assert (found.reasons[0].code, found.summary) == ("not_yet", found.reasons[0].message)
    assert found.next is not None and found.next.execution_date == AT + timedelta(days=1)
    later = client.explain_schedule(made.id, AT + timedelta(minutes=1))
    assert later.reasons[0].code == "not_due"
    assert [slot.name for slot in client.upcoming(made.id, count=2).items] == ["explained here"] * 2
    assert (
        list(client.slots(made.id, outcome=["run", "missed"], reason="catch_up", since=AT, before=AT)) == []
    )
    assert client.missed(made.id).count == 0
    assert client.resume(made.id, "all").status == "active"
    client.delete_schedule(made.id)
    run = client.wait(client.launch("hello").id, timeout=30)
    assert [reason.code for reason in client.explain_run(run.id).reasons] == ["completed"]
    with pytest.raises(NotFound):
        client.explain_run(999_999)


async def test_the_async_client_has_the_same(service: Service) -> None:
    async with AsyncClient(service.url, retries=QUICK) as client:
        made = await client.create_schedule(
            "hello", "for async", schedule_type="time", schedule_interval="@daily", status="active"
        )
        assert (await client.explain_schedule(made.id, AT)).reasons[0].code == "not_yet"
        assert len((await client.upcoming(made.id, count=3)).items) == 3
        assert (await client.preview_schedule("@hourly", count=4)).items[3].notes == []
        assert (await client.missed(made.id)).count == 0
        assert (await client.pause(made.id)).status == "inactive"
        assert (await client.resume(made.id, "skip")).status == "active"
        await client.delete_schedule(made.id)
        assert (await client.apply_triggers(dry_run=True)).dry_run is True
        state = await client.pause_all("for a test")
        try:
            assert (state.paused, state.note) == (True, "for a test")
            assert (await client.paused()).at == state.at
        finally:
            state = await client.resume_all("skip")
        assert state.paused is False
        run = await client.wait((await client.launch("hello")).id, timeout=30)
        assert (await client.explain_run(run.id)).summary.startswith("It completed")
