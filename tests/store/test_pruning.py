"""Named transaction prune, on both databases: what goes, what stays for whose sake, and what a ledger says after."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, select

from app import clock
from app.errors import Conflict
from app.models.states import BlockStatus, Outcome, RunStatus, SlotOutcome
from app.store import idempotency, launch, ledger, pruning, runs, slots
from app.store.db import dumps
from app.store.idempotency import Idempotency
from app.store.pruning import Claimed
from app.store.slots import NewSlot
from app.store.sql import LOG, SCHEDULE, TOMBSTONE
from app.store.units import Chunk, Close, Finish, Unit
from tests.store.conftest import AT, Bench, chain
from tests.store.test_ledger import DAY, days, written

FILE = dumps([{"kind": "json", "value": 1}, {"kind": "pickle", "path": "1/a/1.1/output_1", "size": 3}])


async def over(bench: Bench, outputs: str | None = None, uuid: str = "etl", **values: Any) -> tuple[int, int]:
    """A completed run of one block; its id and its block's."""
    run, new = await bench.running(chain(1, uuid), **values)
    block_id = new.blocks[0].id
    done = Finish(
        block_run_id=block_id,
        attempt=1,
        outcome=Outcome.COMPLETED,
        status=BlockStatus.COMPLETED,
        outputs=outputs,
    )
    await bench.flush(Unit(run_id=run.id, epoch=1, finishes=(done,), close=Close(status=RunStatus.COMPLETED)))
    return run.id, block_id


async def heir(bench: Bench, block_id: int, outputs: str | None) -> int:
    """A completed run that took over what a block has left."""
    new = await bench.new(chain(1))
    block = replace(new.blocks[0], status=BlockStatus.COMPLETED, carried_from=block_id, outputs=outputs)
    (made,) = await bench.launch(replace(new, blocks=(block,)))
    await bench.flush(Unit(run_id=made.run.id, epoch=1, close=Close(status=RunStatus.COMPLETED)))
    return made.run.id


async def old(bench: Bench, before: datetime | None = None) -> list[int]:
    edge = before or clock.now()
    return [run_id for _at, run_id in await bench.db.read(pruning.old_runs, "etl", before=edge, limit=50)]


async def forget(bench: Bench, *ids: int) -> list[int]:
    return await bench.db.write(pruning.forget_runs, ids, now=clock.now())


async def there(bench: Bench, *ids: int) -> list[int]:
    return [run_id for run_id in ids if await bench.db.read(runs.get, run_id) is not None]


async def test_the_newest_and_the_living_stay(bench: Bench) -> None:
    finished = [(await over(bench))[0] for _ in range(4)]
    live, _ = await bench.running(chain(1))
    edge = await bench.db.read(pruning.edge, "etl", before=None, keep=3)
    assert edge is not None
    assert await old(bench, edge) == finished[:1]
    assert await forget(bench, live.id, finished[0]) == finished[:1]
    assert await there(bench, *finished, live.id) == [*finished[1:], live.id]
    assert await bench.db.read(runs.blocks, finished[0]) == []
    assert await bench.db.read(pruning.tombstones, before=clock.now(), limit=9) == finished[:1]


async def test_the_edge_is_the_later_of_age_and_number(bench: Bench) -> None:
    ends = []
    for _ in range(3):
        run = await bench.db.read(runs.get, (await over(bench))[0])
        assert run is not None
        ends.append(run.completed_at)

    async def edge(before: datetime | None, keep: int) -> datetime | None:
        return await bench.db.read(pruning.edge, "etl", before=before, keep=keep)

    assert await edge(None, 0) is None
    assert await edge(None, 2) == ends[1]
    assert await edge(None, 9) is None, "there are no more than three"
    assert await edge(AT - DAY, 2) == ends[1]
    assert await edge(clock.now() + DAY, 2) > ends[2]  # type: ignore[operator]
    assert await bench.db.read(pruning.edge, "other", before=None, keep=1) is None


async def test_what_is_pointed_at_stays_as_long_as_what_points_at_it(bench: Bench) -> None:
    parent, _ = await over(bench)
    child, _ = await over(bench, parent_run_id=parent, depth=1)
    retry, _ = await over(bench, retry_of=child, retry_root=child)
    newest, _ = await over(bench)
    live, _ = await bench.running(chain(1), retry_of=retry, retry_root=child)
    assert await old(bench) == [] and await forget(bench, parent, child, retry) == []
    done = Finish(
        block_run_id=(await bench.db.read(runs.blocks, live.id))[0].id,
        attempt=1,
        outcome=Outcome.FAILED,
        status=BlockStatus.FAILED,
    )
    await bench.flush(Unit(run_id=live.id, epoch=1, finishes=(done,), close=Close(status=RunStatus.FAILED)))
    for expected in (live.id, retry, child, parent):  # from the end of the chain
        assert await old(bench) == [expected]
        assert await forget(bench, parent, child, retry, live.id) == [expected]
    assert await there(bench, newest) == [newest], "what a run of single blocks takes its inputs from"


async def test_outputs_that_were_taken_over_keep_their_run_and_their_files(bench: Bench) -> None:
    source, block_id = await over(bench, FILE)
    taker = await heir(bench, block_id, FILE)
    newest, _ = await over(bench)
    assert await old(bench) == [taker] and await forget(bench, source) == []
    assert await bench.db.write(pruning.forget_outputs, [source], now=clock.now()) == []
    assert await forget(bench, taker) == [taker]
    assert await forget(bench, source) == [source]
    assert await there(bench, source, taker, newest) == [newest]


async def test_files_are_not_kept_for_who_says_itself_that_they_are_gone(bench: Bench) -> None:
    source, block_id = await over(bench, FILE)
    taker = await heir(bench, block_id, FILE)
    await over(bench)
    assert await bench.db.write(pruning.forget_outputs, [taker], now=clock.now()) == [taker]
    found = await bench.db.read(pruning.with_files, "etl", before=clock.now(), limit=9)
    assert [run_id for _, run_id in found] == [source]
    assert await bench.db.write(pruning.forget_outputs, [source], now=clock.now()) == [source]
    assert await bench.db.read(pruning.tombstones, before=clock.now(), limit=9) == [source, taker]
    assert await bench.db.read(pruning.tombstones, before=clock.now(), limit=9, after=source) == [taker]


async def test_outputs_go_before_their_run_and_say_so(bench: Bench) -> None:
    source, block_id = await over(bench, FILE)
    plain, _ = await over(bench, dumps([{"kind": "json", "value": {"path": "in/a/value"}}]))
    newest, _ = await over(bench, FILE)

    async def found() -> list[int]:
        return [run for _, run in await bench.db.read(pruning.with_files, "etl", before=clock.now(), limit=9)]

    assert await found() == [source]
    assert await bench.db.write(pruning.forget_outputs, [source, newest], now=clock.now()) == [source]
    row = await bench.db.read(runs.block, block_id)
    assert row is not None and list(row.outputs) == [{"kind": "json", "value": 1}, {"kind": pruning.GONE}]
    assert await found() == []
    assert await bench.db.read(pruning.tombstones, before=clock.now(), limit=9) == [source]
    assert await forget(bench, source, plain) == [source, plain], "its tombstone stands already"


async def test_files_wait_for_who_took_them_over_at_the_last_moment(bench: Bench) -> None:
    source, block_id = await over(bench, FILE)
    newest, _ = await over(bench)
    await bench.db.write(pruning.forget_outputs, [source], now=clock.now())
    taker = await heir(bench, block_id, FILE)  # had read the outputs before
    assert await bench.db.read(pruning.tombstones, before=clock.now(), limit=9) == []
    await over(bench)
    assert await forget(bench, taker) == [taker]
    assert await bench.db.read(pruning.tombstones, before=clock.now(), limit=9) == [source, taker]
    await bench.db.write(pruning.settle, [source, taker], now=clock.now())
    assert await bench.db.read(_graves) == [] and await there(bench, source, newest) == [source, newest]


async def test_what_has_been_pruned_meanwhile_is_not_taken_over(bench: Bench) -> None:
    run_id, block_id = await over(bench, FILE)
    await over(bench)
    assert await forget(bench, run_id) == [run_id]
    with pytest.raises(Conflict, match="what an earlier run left of 'a' has just been pruned"):
        await heir(bench, block_id, FILE)


async def test_what_is_being_taken_over_is_not_pruned(bench: Bench) -> None:
    run_id, block_id = await over(bench, FILE)
    await over(bench)
    new = await bench.new(chain(1))
    block = replace(new.blocks[0], status=BlockStatus.COMPLETED, carried_from=block_id, outputs=FILE)
    _, gone, _ = await bench.cross(
        lambda tx: launch.launch(tx, [replace(new, blocks=(block,))], bench.claimer(), now=clock.now()),
        lambda tx: pruning.forget_runs(tx, [run_id], now=clock.now()),
    )
    assert gone == []


def _graves(tx: Connection) -> list[int]:
    return list(tx.execute(select(TOMBSTONE.c.run_id)).scalars())


async def test_logs_go_alone_and_in_pieces(bench: Bench) -> None:
    run, new = await bench.running(chain(1))
    block_id = new.blocks[0].id
    chunks = tuple(
        Chunk(pos=n, block_run_id=block_id, attempt=1, lines='[[1,"stdout","info","x"]]') for n in range(5)
    )
    await bench.flush(Unit(run_id=run.id, epoch=1, chunks=chunks))
    found = await bench.db.read(pruning.with_logs, "etl", before=clock.now(), limit=9)
    assert found == [], "it is live"
    done = Finish(block_run_id=block_id, attempt=1, outcome=Outcome.COMPLETED, status=BlockStatus.COMPLETED)
    await bench.flush(Unit(run_id=run.id, epoch=1, finishes=(done,), close=Close(status=RunStatus.COMPLETED)))
    found = await bench.db.read(pruning.with_logs, "etl", before=clock.now(), limit=9)
    assert [run_id for _at, run_id in found] == [run.id]
    weight = await bench.db.read(pruning.weigh, [run.id])
    assert (weight.block_runs, weight.log_bytes) == (1, 5 * 25)
    counts = [await bench.db.write(pruning.forget_logs, [run.id], 2, now=clock.now()) for _ in range(4)]
    assert counts == [2, 2, 1, 0]
    assert await bench.db.read(_chunks) == 0 and await there(bench, run.id) == [run.id]


def _chunks(tx: Connection) -> int:
    return len(tx.execute(select(LOG.c.pos)).all())


async def pruned_until(bench: Bench, schedule_id: int) -> datetime | None:
    def look(tx: Connection) -> datetime | None:
        return tx.execute(select(SCHEDULE.c.pruned_until).where(SCHEDULE.c.id == schedule_id)).scalar()

    return await bench.db.read(look)


async def test_old_slots_go_gaps_included_and_the_newest_never(bench: Bench) -> None:
    one = await written(bench)
    assert await bench.db.read(pruning.old_slots, before=AT, limit=9) == []
    first = await bench.db.read(pruning.old_slots, before=AT + DAY, limit=1)
    assert first == [(one, AT)]
    assert await bench.db.write(pruning.forget_slots, first, now=clock.now()) == 1
    assert await pruned_until(bench, one) == AT + 4 * DAY, "the end of the stretch"
    rest = await bench.db.read(pruning.old_slots, before=AT + DAY, after=first[0], limit=9)
    assert rest == [(one, AT + 5 * DAY)]
    await bench.db.write(pruning.forget_slots, rest, now=clock.now())
    assert await days(bench, one) == [6], "a trigger knows the last that was decided"
    assert await pruned_until(bench, one) == AT + 5 * DAY
    assert await bench.db.read(pruning.old_slots, before=AT + DAY, limit=9) == []


async def test_a_slot_that_is_yet_to_be_said_late_stays(bench: Bench) -> None:
    one = await written(bench, sla=60)
    assert await bench.db.read(pruning.old_slots, before=AT + DAY, limit=9) == [(one, AT + 5 * DAY)]


async def test_the_slot_of_a_run_goes_with_it_and_the_newest_keeps_it(bench: Bench) -> None:
    one = await written(bench)
    row = (await bench.db.read(slots.of_ids, [one]))[0]
    ids = []
    for day in (7, 8):
        at = AT + day * DAY
        run_id, _ = await over(bench, pipeline_schedule_id=one, execution_date=at)
        made = NewSlot(execution_date=at, outcome=SlotOutcome.RUN, pipeline_run_id=run_id)
        await bench.db.write(slots.advance, [(row, at, at + DAY)])
        await bench.db.write(slots.write_slots, row, [made], node_id=bench.me, now=AT)
        row = (await bench.db.read(slots.of_ids, [one]))[0]
        ids.append(run_id)
    await over(bench)  # a newer completed run, which is no trigger's
    assert (one, AT + 7 * DAY) not in await bench.db.read(pruning.old_slots, before=AT + DAY, limit=9)
    assert await old(bench) == ids[:1]
    assert await forget(bench, *ids) == ids[:1]
    assert await days(bench, one) == [8, 6, 5, 0]
    assert await pruned_until(bench, one) == AT + 7 * DAY
    known = await bench.db.read(ledger.known, one, AT + 8 * DAY)
    assert known is not None and known.run is not None and known.run.id == ids[1]


async def test_one_node_at_a_time(bench: Bench) -> None:
    now = clock.now()
    await bench.db.write(pruning.claim, "a", now=now)
    with pytest.raises(Claimed, match="node a"):
        await bench.db.write(pruning.claim, "b", now=now)
    await bench.db.write(pruning.release, "b")
    _, counted = await bench.db.write(pruning.batch, "a", pruning.forget_logs, [], 5, now=now)
    assert counted == 0
    with pytest.raises(Claimed):
        await bench.db.write(pruning.batch, "b", pruning.forget_logs, [], 5, now=now)
    later = now + timedelta(seconds=pruning.CLAIM_S + 1)
    await bench.db.write(pruning.claim, "b", now=later)  # "a" was killed
    await bench.db.write(pruning.release, "b")
    await bench.db.write(pruning.claim, "a", now=later)


async def test_every_pipeline_that_ever_ran_is_found(bench: Bench) -> None:
    assert await bench.db.read(pruning.pipelines) == []
    for uuid in ("b", "a", "c", "a"):
        await over(bench, uuid=uuid)
    assert await bench.db.read(pruning.pipelines) == ["a", "b", "c"]


async def test_keys_of_requests_go_in_pieces(bench: Bench) -> None:
    now = clock.now()
    for n in range(3):
        await bench.db.write(idempotency.claim, Idempotency("s", str(n), "f"), 1, now=now)
    counts = [await bench.db.write(idempotency.forget, before=now + DAY, limit=2) for _ in range(3)]
    assert counts == [2, 1, 0]
    assert await bench.db.write(idempotency.forget, before=now, limit=2) == 0
