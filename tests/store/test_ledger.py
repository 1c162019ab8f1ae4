"""The ledger as readers see it, on both databases: pages with filters, one moment of a trigger, what is to fire."""

from datetime import timedelta
from typing import Any

from app.models.states import ScheduleStatus, SlotOutcome
from app.store import ledger, schedules, slots
from app.store.slots import NewSlot
from tests.store.conftest import AT, Bench
from tests.store.test_schedules import trigger

DAY = timedelta(days=1)
MISSED, SKIPPED = SlotOutcome.MISSED, SlotOutcome.SKIPPED


async def written(bench: Bench, **values: Any) -> int:
    """A trigger with a stretch of five slots, two single ones after it, and its id."""
    values = {
        "schedule_interval": "0 12 * * *",
        "cursor_at": AT + 6 * DAY,
        "next_fire_at": AT + 7 * DAY,
    } | values
    row = await trigger(bench, **values)
    decided = [
        NewSlot(execution_date=AT, outcome=MISSED, reason="catch_up", until=AT + 4 * DAY, count=5),
        NewSlot(
            execution_date=AT + 5 * DAY, outcome=SKIPPED, reason="blackout", detail={"text": "blackout: sat"}
        ),
        NewSlot(execution_date=AT + 6 * DAY, outcome=MISSED, reason="edited"),
    ]
    await bench.db.write(slots.write_slots, row, decided, node_id=bench.me, now=AT)
    return row.id


async def days(bench: Bench, schedule_id: int, **filters: Any) -> list[int]:
    found = await bench.db.read(ledger.page, schedule_id, limit=10, **filters)
    return [(row.execution_date - AT).days for row in found]


async def test_a_page_has_what_passes_every_filter(bench: Bench) -> None:
    one = await written(bench)
    assert await days(bench, one) == [6, 5, 0]
    assert await days(bench, one, outcome=["missed"]) == [6, 0]
    assert await days(bench, one, reason=["edited", "blackout"]) == [6, 5]
    assert await days(bench, one, dated=(AT + 3 * DAY, None)) == [6, 5, 0], "the stretch reaches into it"
    assert await days(bench, one, dated=(AT + 5 * DAY, AT + 6 * DAY)) == [5]
    assert await days(bench, one, before=AT + 6 * DAY) == [5, 0]
    (row,) = await bench.db.read(ledger.page, one, limit=1, reason=["blackout"])
    assert (row.detail, row.decided_by, row.revision) == ({"text": "blackout: sat"}, bench.me, 1)


async def test_a_moment_has_the_row_that_holds_it_and_its_neighbours(bench: Bench) -> None:
    one = await written(bench)

    async def around(at: Any) -> list[int | None]:
        found = await bench.db.read(ledger.known, one, at)
        assert found is not None
        rows = (found.before, found.slot, found.after)
        return [None if row is None else (row.execution_date - AT).days for row in rows]

    assert await around(AT - DAY) == [None, None, 0]
    assert await around(AT) == [None, 0, 5]
    assert await around(AT + 2 * DAY) == [0, 0, 5], "within the stretch"
    assert await around(AT + 5 * DAY) == [0, 5, 6]
    assert await around(AT + 5 * DAY + timedelta(hours=1)) == [5, None, 6]
    assert await around(AT + 9 * DAY) == [6, None, None]
    assert await bench.db.read(ledger.known, 99, AT) is None


async def test_a_moment_has_the_definition_that_held_then(bench: Bench) -> None:
    one = (await trigger(bench)).id
    later = {"revision": 2, "schedule_interval": "@daily", "settings": {"dst_gap": "skip"}}
    await bench.db.write(schedules.save, one, later, new=False, now=AT + DAY)
    gone = {"revision": 3, "deleted_at": AT + 2 * DAY, "status": ScheduleStatus.INACTIVE}
    await bench.db.write(schedules.save, one, gone, new=False, now=AT + 2 * DAY)
    found = [await bench.db.read(ledger.known, one, AT + n * DAY) for n in (-1, 0, 1, 2)]
    then = [known.then for known in found if known]
    assert [row and (row.revision, row.schedule_interval, row.settings) for row in then] == [
        None,
        (1, "@hourly", {}),
        (2, "@daily", {"dst_gap": "skip"}),
        (3, "@daily", {"dst_gap": "skip"}),
    ]
    assert found[0] is not None and found[0].deleted_at == AT + 2 * DAY
    assert found[0].alive == (bench.me,)


async def test_what_is_to_fire_is_active_and_sound(bench: Bench) -> None:
    await trigger(bench, 1, next_fire_at=AT + 2 * DAY)
    await trigger(bench, 2, next_fire_at=AT + DAY, pipeline_uuid="other")
    await trigger(bench, 3, status=ScheduleStatus.INACTIVE)
    await trigger(bench, 4, error="no interval")
    await trigger(bench, 5, next_fire_at=None)

    async def ids(**filters: Any) -> list[int]:
        return [row.id for row in await bench.db.read(ledger.to_fire, limit=9, **filters)]

    assert await ids() == [2, 1]
    assert await ids(ids=(1, 3)) == [1]
    assert await ids(pipelines=("other",)) == [2]
