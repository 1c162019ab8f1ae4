"""Named transactions cancel, takeover, hand-over and abort, on both databases."""

import asyncio
from datetime import timedelta

from sqlalchemy import Connection, update

from app import clock
from app.models.states import BlockStatus, Outcome, RunStatus
from app.store import launch, nodes, ownership, runs
from app.store.sql import NODE
from app.store.units import Close, Finish, Unit
from tests.store.conftest import Bench, chain


async def finish(bench: Bench, run_id: int, block_id: int) -> None:
    done = Finish(block_run_id=block_id, attempt=1, outcome=Outcome.COMPLETED, status=BlockStatus.COMPLETED)
    await bench.flush(Unit(run_id=run_id, epoch=1, finishes=(done,), close=Close(status=RunStatus.COMPLETED)))


async def test_a_waiting_run_is_cancelled_at_once_with_its_blocks(bench: Bench) -> None:
    (made,) = await bench.launch(await bench.new(), claim=False)
    run = await bench.db.write(ownership.cancel, made.run.id, reason="asked", now=clock.now())
    assert run is not None
    assert (run.status, run.status_reason) == (RunStatus.CANCELLED, "asked")
    assert {b.status for b in await bench.db.read(runs.blocks, run.id)} == {BlockStatus.CANCELLED}


async def test_a_running_run_is_only_asked(bench: Bench) -> None:
    run, _ = await bench.running()
    asked = await bench.db.write(ownership.cancel, run.id, reason="asked", now=clock.now())
    assert asked is not None
    assert asked.status is RunStatus.RUNNING
    assert asked.cancel_requested_at is not None
    assert await bench.db.read(runs.cancel_asked, bench.me) == [run.id]


async def test_a_finished_run_does_not_change(bench: Bench) -> None:
    run, new = await bench.running(chain(1))
    await finish(bench, run.id, new.blocks[0].id)
    before = await bench.db.read(runs.get, run.id)
    assert await bench.db.write(ownership.cancel, run.id, reason="late", now=clock.now()) == before


async def test_cancelling_nothing_finds_nothing(bench: Bench) -> None:
    assert await bench.db.write(ownership.cancel, 12345, reason="x", now=clock.now()) is None


async def test_a_child_of_a_run_that_stops_is_cancelled_at_birth(bench: Bench) -> None:
    stopping, _ = await bench.running()
    finished, new = await bench.running(chain(1))
    await bench.db.write(ownership.cancel, stopping.id, reason="asked", now=clock.now())
    await finish(bench, finished.id, new.blocks[0].id)
    children = [await bench.new(parent_run_id=parent.id, depth=1) for parent in (stopping, finished)]
    made = await bench.launch(*children, await bench.new())
    ended = (RunStatus.CANCELLED, "parent cancelled")
    assert [(m.run.status, m.run.status_reason) for m in made] == [ended, ended, (RunStatus.RUNNING, None)]


async def test_a_cancel_sees_the_child_that_is_being_launched(bench: Bench) -> None:
    parent, _ = await bench.running()
    child = await bench.new(parent_run_id=parent.id, depth=1)
    await bench.cross(
        lambda tx: launch.launch(tx, [child], bench.claimer(), now=clock.now()),
        lambda tx: ownership.cancel(tx, parent.id, reason="asked", now=clock.now()),
    )
    assert await bench.db.read(runs.cancel_asked, bench.me) == [parent.id, child.id]


async def test_a_takeover_loses_open_attempts_and_queues_their_blocks(bench: Bench) -> None:
    run, _ = await bench.running()
    heir = await bench.node()
    await bench.db.write(nodes.hand_over, bench.me, now=clock.now())
    (taken,) = await bench.db.write(ownership.takeover, heir, limit=10, now=clock.now())
    assert (taken.run_id, taken.epoch) == (run.id, 2)
    first, second = await bench.db.read(runs.blocks, run.id)
    assert (first.status, first.attempts[0].outcome) == (BlockStatus.QUEUED, Outcome.LOST)
    assert second.status is BlockStatus.INITIAL


async def test_two_heirs_never_take_the_same_run(bench: Bench) -> None:
    for _ in range(6):
        await bench.running()
    heirs = [await bench.node() for _ in range(3)]
    await bench.db.write(nodes.fence, [bench.me], now=clock.now())
    now = clock.now()
    taken = await asyncio.gather(
        *(bench.db.write(ownership.takeover, heir, limit=6, now=now) for heir in heirs)
    )
    ids = [t.run_id for batch in taken for t in batch]
    assert sorted(ids) == sorted(set(ids))
    assert len(ids) == 6


async def test_nothing_is_taken_from_the_living(bench: Bench) -> None:
    await bench.running()
    heir = await bench.node()
    assert await bench.db.write(ownership.takeover, heir, limit=10, now=clock.now()) == []


async def test_a_node_is_fenced_when_its_lease_runs_out(bench: Bench) -> None:
    judge, later = await bench.node(), clock.now() + timedelta(hours=1)

    def end(tx: Connection) -> None:
        tx.execute(update(NODE).where(NODE.c.id == bench.me).values(lease_until=clock.now() - timedelta(1)))

    await bench.db.write(end)
    early = clock.now() - timedelta(days=2)
    assert await bench.db.write(nodes.fence_expired, judge, before=early, now=later) == []
    assert await bench.db.write(nodes.fence_expired, judge, before=later, now=later) == [bench.me]
    assert await bench.db.write(nodes.renew, bench.me, now=later, lease_s=20) is False


async def test_an_aborted_run_leaves_nothing_open(bench: Bench) -> None:
    run, _ = await bench.running()
    ended = await bench.db.write(
        ownership.abort, run.id, bench.me, 1, reason="internal_error", now=clock.now()
    )
    assert ended
    row = await bench.db.read(runs.get, run.id)
    assert row is not None
    assert (row.status, row.status_reason) == (RunStatus.FAILED, "internal_error")
    assert not await bench.db.write(
        ownership.abort, run.id, bench.me, 1, reason="internal_error", now=clock.now()
    )
