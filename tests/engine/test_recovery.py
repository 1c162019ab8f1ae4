"""What becomes of runs when their node stops, dies, hangs or loses its database; and of two ends at once."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from app import clock
from app.errors import StoreUnavailable
from app.executors.base import BlockCall, BlockResult, LogLine
from app.models.rows import RunRow
from app.models.states import BlockStatus, NodeState, Outcome, RunStatus, SlotOutcome
from app.scheduler.engine import Engine, running
from app.scheduler.launch import LaunchRequest
from app.scheduler.progress import MAX_LOST
from app.scheduler.runstate import of_rows
from app.store import launch as launching
from app.store import nodes, ownership, runs, schedules, slots
from app.store.db import Tx
from app.store.opening import open_database
from tests.engine.conftest import Scripted, World, done, failed, statuses, until, world_on
from tests.invariants import assert_hold
from tests.soak.proxy import wire

S = BlockStatus
LATER = {"upstream_blocks": [], "retry_config": {"retries": 1, "delay": 600}}


class Gate:
    """A block that runs until the test opens it; what it then gives is `result`."""

    def __init__(self, result: BlockResult | None = None) -> None:
        self.entered, self.open = asyncio.Event(), asyncio.Event()
        self.result = result or done(1)

    async def __call__(self, call: BlockCall) -> BlockResult:
        self.entered.set()
        await self.open.wait()
        return self.result


async def fails(call: BlockCall) -> BlockResult:
    return failed()


async def not_yet(call: BlockCall) -> BlockResult:
    return BlockResult(Outcome.COMPLETED, value_false=True)


async def launch(engine: Engine, uuid: str = "etl", **request: Any) -> RunRow:
    return await engine.launch(LaunchRequest(pipeline_uuid=uuid, **request))


async def parked(engine: Engine, run_id: int) -> None:
    await until(lambda: run_id in engine.fleet.parking and run_id not in engine.fleet.active)


async def driven(engine: Engine, run_id: int) -> None:
    await until(lambda: run_id in engine.fleet.active)


async def first_run(engine: Engine) -> int:
    async with asyncio.timeout(10):
        while not (found := await engine.db.read(runs.page, limit=1)):
            await asyncio.sleep(0.01)
    return found[0].id


async def change(engine: Engine, statement: str, **values: Any) -> None:
    def run(tx: Tx) -> None:
        tx.execute(text(statement), values)

    await engine.db.write(run)


@asynccontextmanager
async def dying(engine: Engine, executor: Scripted) -> AsyncIterator[Engine]:
    """An engine whose node is declared dead at the end, with everything it was doing."""
    async with running(engine):
        yield engine
        await engine.db.write(nodes.fence, [engine.node_id], now=clock.now())
        engine.fleet.leave()
        await executor.stop()


# Hand-over and takeover


async def test_a_run_in_the_middle_is_handed_over_and_its_finished_blocks_stay_finished(world: World) -> None:
    world.pipeline("etl", {"a": [], "b": ["a"], "c": ["b"]})
    gate = world.executor.plays["b"] = Gate()
    async with world.serving() as engine:
        run = await launch(engine)
        await gate.entered.wait()
    gate.open.set()
    async with world.serving() as engine:
        assert await engine.wait(run.id, 10)
        found, blocks = await world.look(engine, run.id)
        assert (found.status, found.epoch) == (RunStatus.COMPLETED, 2)
        assert world.executor.ran() == ["a", "b", "b", "c"]
        assert [a.outcome for a in blocks["b"].attempts] == [Outcome.LOST, Outcome.COMPLETED]


async def test_a_run_of_a_dead_node_goes_on_from_its_finished_blocks(world: World) -> None:
    world.pipeline("etl", {"a": [], "b": ["a"]})
    gate = world.executor.plays["b"] = Gate()
    engine = world.engine(lease_s=600)  # it is fenced while it lives
    async with dying(engine, world.executor):
        run = await launch(engine)
        await gate.entered.wait()
    gate.open.set()
    async with world.serving() as engine:
        assert await engine.wait(run.id, 10)
        found, blocks = await world.look(engine, run.id)
        assert found.status is RunStatus.COMPLETED
        assert [len(b.attempts) for b in blocks.values()] == [1, 2]


async def test_a_parked_run_is_handed_over_with_its_time(world: World) -> None:
    again = {"upstream_blocks": [], "retry_config": {"retries": 1, "delay": 1.5}}
    world.pipeline("etl", {"a": again})
    world.executor.plays["a"] = fails
    async with world.serving() as engine:
        run = await launch(engine)
        await parked(engine, run.id)
        before = (await world.look(engine, run.id))[1]["a"].wake_at
    world.executor.plays.clear()
    async with world.serving() as engine:
        assert (await world.look(engine, run.id))[1]["a"].wake_at == before
        assert await engine.wait(run.id, 10)
        assert before is not None and clock.now() >= before
        assert (await world.look(engine, run.id))[0].status is RunStatus.COMPLETED


async def test_runs_that_wait_for_admission_are_found_by_the_next_service(world: World) -> None:
    world.pipeline("etl", {"a": []})
    gate = world.executor.plays["a"] = Gate()
    async with world.serving(run_slots=1) as engine:
        first = await launch(engine)
        waiting = [await launch(engine) for _ in range(3)]
        assert {run.status for run in waiting} == {RunStatus.INITIAL}
    gate.open.set()
    async with world.serving(run_slots=1, scheduling=True) as engine:
        for run in (first, *waiting):
            assert await engine.wait(run.id, 15)
            assert (await world.look(engine, run.id))[0].status is RunStatus.COMPLETED


async def test_a_cancel_that_nobody_could_carry_out_is_carried_out_by_the_heir(world: World) -> None:
    world.pipeline("etl", {"a": [], "b": ["a"]})
    gate = world.executor.plays["a"] = Gate()
    engine = world.engine(lease_s=600)  # it is fenced while it lives
    async with dying(engine, world.executor):
        run = await launch(engine)
        await gate.entered.wait()
        await engine.db.write(ownership.cancel, run.id, reason="asked", now=clock.now())
    async with world.serving() as engine:
        assert await engine.wait(run.id, 10)
        found, blocks = await world.look(engine, run.id)
        assert found.status is RunStatus.CANCELLED
        assert statuses(blocks) == {"a": S.CANCELLED, "b": S.CANCELLED}
        assert world.executor.ran() == ["a"]


async def test_a_waiting_sensor_survives_any_number_of_restarts(world: World) -> None:
    sensor = {"type": "sensor", "upstream_blocks": [], "configuration": {"interval": 600}}
    world.pipeline("etl", {"wait": sensor})
    world.executor.plays["wait"] = not_yet
    async with world.serving() as engine:
        run = await launch(engine)
        await parked(engine, run.id)
        await change(engine, "UPDATE block_run SET wake_at = :at", at=long_ago(engine))
    for number in range(MAX_LOST + 2):
        async with world.serving() as engine:
            await until(lambda asked=number + 2: len(world.executor.ran()) == asked)  # type: ignore[misc]
            await parked(engine, run.id)
            assert (await world.look(engine, run.id))[0].status is RunStatus.RUNNING
            await change(engine, "UPDATE block_run SET wake_at = :at", at=long_ago(engine))
    world.executor.plays.clear()
    async with world.serving() as engine:
        assert await engine.wait(run.id, 10)
        assert (await world.look(engine, run.id))[0].status is RunStatus.COMPLETED


def long_ago(engine: Engine, *, days: float = 0.001) -> Any:
    """A moment in the past as the dialect's raw SQL understands it."""
    at = clock.now() - timedelta(days=days)
    return at if engine.db.dialect == "postgresql" else int(at.timestamp() * 1_000_000)


async def test_a_run_that_waits_for_a_worker_is_not_blamed_for_the_deaths_of_its_nodes(world: World) -> None:
    world.pipeline("etl", {"a": []})
    for _ in range(4):
        await world.executor.places.acquire()
    for number in range(MAX_LOST + 3):
        engine = world.engine(lease_s=600)  # it is fenced while it lives
        async with dying(engine, world.executor):
            if not number:
                run = await launch(engine)
            await driven(engine, run.id)
    for _ in range(4):
        world.executor.places.release()
    async with world.serving() as engine:
        assert await engine.wait(run.id, 10)
        assert (await world.look(engine, run.id))[0].status is RunStatus.COMPLETED


async def test_a_block_that_takes_its_node_with_it_is_given_up(world: World) -> None:
    world.pipeline("etl", {"a": [], "b": ["a"]})
    gate = world.executor.plays["a"] = Gate()
    engine = world.engine(lease_s=600)  # it is fenced while it lives
    async with dying(engine, world.executor):
        run = await launch(engine)
        await gate.entered.wait()
    for _ in range(MAX_LOST - 1):
        gate.entered.clear()
        engine = world.engine(lease_s=600)  # it is fenced while it lives
        async with dying(engine, world.executor):
            await gate.entered.wait()
    async with world.serving() as engine:
        assert await engine.wait(run.id, 10)
        found, _ = await world.look(engine, run.id)
        assert (found.status, found.status_reason) == (RunStatus.FAILED, "recovery limit")
        assert len(world.executor.calls) == MAX_LOST


async def test_rows_that_make_no_sense_end_their_run_and_not_the_service(world: World) -> None:
    world.pipeline("etl", {"a": []})
    world.pipeline("good", {"g": []})
    world.executor.plays["a"] = Gate()
    async with world.serving() as engine:
        bad = await launch(engine)
    engine = world.engine(lease_s=600)  # it is fenced while it lives
    db = open_database(world.url)
    await db.open()
    version = await db.read(
        lambda tx: tx.execute(text("SELECT definition FROM pipeline_version")).scalar_one()
    )

    def define(tx: Tx, definition: str) -> None:
        tx.execute(
            text("UPDATE pipeline_version SET definition = :d WHERE pipeline_uuid = 'etl'"), {"d": definition}
        )

    await db.write(define, '{"from": "another version"}')
    await db.close()
    async with running(engine):
        assert await engine.wait(bad.id, 10)
        assert (await world.look(engine, bad.id))[0].status_reason == "internal_error"
        assert (await world.run(engine, "good"))[0].status is RunStatus.COMPLETED
        await engine.db.write(define, version)
        await assert_hold(engine.db)


async def test_a_run_of_ours_that_nobody_drives_is_taken_up_again(world: World) -> None:
    """As when the answer to a launch was lost: it is on record as running here, its first block too."""
    world.pipeline("etl", {"a": [], "b": ["a"]})
    gate = world.executor.plays["a"] = Gate()
    async with world.serving() as engine:
        run = await launch(engine)
        await gate.entered.wait()
        engine.fleet.active[run.id].leave()  # forgotten by the node, still on its name
        await world.executor.stop()
        await until(lambda: run.id not in engine.fleet.active)
        gate.open.set()
        await engine.passes.recover()
        await engine.passes.recover()
        assert await engine.wait(run.id, 10)
        found, blocks = await world.look(engine, run.id)
        assert (found.status, found.epoch) == (RunStatus.COMPLETED, 2)
        assert [a.outcome for a in blocks["a"].attempts] == [Outcome.LOST, Outcome.COMPLETED]


async def test_two_wake_ups_of_a_run_make_one_runner(world: World) -> None:
    world.pipeline("etl", {"a": LATER})
    world.executor.plays["a"] = fails
    async with world.serving() as engine:
        run = await launch(engine)
        await parked(engine, run.id)
        gate = world.executor.plays["a"] = Gate()
        await change(engine, "UPDATE block_run SET wake_at = :at", at=long_ago(engine))
        resumed = await engine.db.read(runs.load, run.id)
        assert resumed is not None
        engine.fleet.wake(run.id)
        state = of_rows(resumed)
        engine.fleet.begin(state, engine.fleet.permits(None, state.pipeline), {})
        first = engine.fleet.active[run.id]
        await until(lambda: not engine.fleet._loading)
        await gate.entered.wait()
        assert engine.fleet.active[run.id] is first
        gate.open.set()
        assert await engine.wait(run.id, 10)
        assert world.executor.ran() == ["a", "a"], "the first try and its one repetition"


async def test_a_run_that_is_lost_leaves_no_timer_behind(world: World) -> None:
    """A line that comes when the run is another's already is given to nobody."""
    world.pipeline("etl", {"a": []})
    gate = world.executor.plays["a"] = Gate()
    async with world.serving() as engine:
        run = await launch(engine)
        await gate.entered.wait()
        runner = engine.fleet.active[run.id]
        await engine.db.write(ownership.abort, run.id, engine.node_id, 1, reason="test", now=clock.now())
        runner.stop("cancel")
        await until(lambda: not engine.fleet.active)
        for _ in range(120):
            runner.writing._log.add("a", 1, 1, LogLine("stdout", "info", "late"))
        assert runner.writing._log._timer is None


# Stopping


async def test_a_run_that_is_claimed_while_its_node_leaves_is_left_to_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.pipeline("etl", {"a": []})
    async with asyncio.timeout(20), world.serving() as engine:
        write = engine.db.write

        async def leave_meanwhile(fn: Any, *args: Any, **kwargs: Any) -> Any:
            written = await write(fn, *args, **kwargs)
            if fn is launching.launch:
                engine.fleet.leave()
            return written

        monkeypatch.setattr(engine.db, "write", leave_meanwhile)
        run = await launch(engine)
        assert run.owner == engine.node_id
        assert not engine.fleet.active
        assert world.executor.places._value == 4
    async with world.serving() as engine:
        assert await engine.wait(run.id, 10)
        assert (await world.look(engine, run.id))[0].status is RunStatus.COMPLETED


async def test_a_stop_does_not_wait_for_a_database_that_is_away(postgres_url: str, world_at: Any) -> None:
    async with wire(postgres_url) as proxy:
        world = world_at(proxy.url)
        world.pipeline("etl", {"a": [], "b": ["a"]})
        gate = world.executor.plays["a"] = Gate()
        engine = world.engine(lease_s=600)  # it is fenced while it lives
        async with asyncio.timeout(40), running(engine):
            run = await launch(engine)
            await gate.entered.wait()
            await proxy.down()
            gate.open.set()
            await until(lambda: bool(engine._journal._in_flight))
        await proxy.up()
    world = world_at(postgres_url)
    async with world.serving() as engine:
        await engine.db.write(
            nodes.fence,
            [n.id for n in await engine.db.read(nodes.alive) if n.id != engine.node_id],
            now=clock.now(),
        )
        await engine.passes.recover()
        assert await engine.wait(run.id, 10)
        assert (await world.look(engine, run.id))[0].status is RunStatus.COMPLETED


async def test_launches_on_their_way_are_answered_at_a_stop(world: World) -> None:
    world.pipeline("etl", {"a": []})
    engine = world.engine(lease_s=600)  # it is fenced while it lives
    async with asyncio.timeout(20):
        async with running(engine):
            await engine.fleet.claiming.acquire()  # somebody claims, for ever
            launching = asyncio.create_task(launch(engine))
            await asyncio.sleep(0.05)
        with pytest.raises(StoreUnavailable):
            await launching


async def test_a_drain_longer_than_the_lease_is_no_death(postgres_url: str, world_at: Any) -> None:
    world = world_at(postgres_url)
    world.pipeline("etl", {"a": []})
    gate = world.executor.plays["a"] = Gate()
    engine = world.engine(lease_s=5.0, scheduling=True)

    async def opens_after(lease_until: datetime) -> None:
        async def has_passed() -> bool:
            (node,) = await engine.db.read(nodes.alive)
            return node.lease_until > lease_until + timedelta(seconds=5)

        await until(has_passed, 50)
        gate.open.set()

    async with asyncio.TaskGroup() as group, running(engine, drain_s=60):
        run = await launch(engine)
        await gate.entered.wait()
        (node,) = await engine.db.read(nodes.alive)
        group.create_task(opens_after(node.lease_until))
    assert not engine.is_lost
    async with world.serving() as engine:
        assert (await world.look(engine, run.id))[0].status is RunStatus.COMPLETED


async def test_a_node_with_a_wrong_clock_fences_nobody(postgres_url: str, world_at: Any) -> None:
    world, other = world_at(postgres_url), world_at(postgres_url)
    try:
        async with world.serving() as first:
            clock.adjust(timedelta(hours=1))
            async with other.serving() as second:
                alive = {node.id: node.state for node in await second.db.read(nodes.alive)}
                assert alive == {first.node_id: NodeState.LIVE, second.node_id: NodeState.LIVE}
                assert abs(clock.now() - clock.host_now()) < timedelta(seconds=5)
    finally:
        clock.adjust(timedelta(0))


async def test_a_second_node_takes_over_while_the_first_still_lives(postgres_url: str, world_at: Any) -> None:
    """The first is fenced with a block running: its result is refused, the second's counts."""
    one, two = world_at(postgres_url), world_at(postgres_url)
    one.pipeline("etl", {"a": [], "b": ["a"]})
    gate = one.executor.plays["a"] = Gate()
    async with running(one.engine(lease_s=600)) as first, two.serving() as second:
        run = await launch(first)
        await gate.entered.wait()
        await second.db.write(nodes.fence, [first.node_id], now=clock.now())
        await second.passes.recover()
        assert await second.wait(run.id, 10)
        gate.open.set()
        await until(lambda: not first.fleet.active)
        found, blocks = await two.look(second, run.id)
        assert (found.status, found.owner) == (RunStatus.COMPLETED, second.node_id)
        assert [a.outcome for a in blocks["a"].attempts] == [Outcome.LOST, Outcome.COMPLETED]
        assert one.executor.places._value == 4
        assert two.executor.ran() == ["a", "b"]


@pytest.fixture
def world_at(tmp_path: Path) -> Any:
    """Worlds on databases of the test's choice, with one project."""
    return lambda url: world_on(url, tmp_path / "project")


async def test_a_launch_whose_answer_was_lost_still_runs(postgres_url: str, world_at: Any) -> None:
    async with wire(postgres_url) as proxy:
        world = world_at(proxy.url)
        world.pipeline("etl", {"a": [], "b": ["a"]})
        async with world.serving() as engine:
            await world.run(engine, "etl")
            proxy.after, proxy.swallow = b"the one", b"COMMIT"
            lost = await launch(
                engine, variables={"which": "the one"}
            )  # the server was asked what became of it
            assert await engine.wait(lost.id, 10)
            assert (await world.look(engine, lost.id))[0].status is RunStatus.COMPLETED
            assert world.executor.places._value == 4


# Two things at once


async def test_a_poke_and_a_failure_that_end_together_end_the_run(world: World) -> None:
    sensor = {"type": "sensor", "upstream_blocks": [], "configuration": {"interval": 600}}
    world.pipeline("etl", {"bad": [], "wait": sensor})
    bad, poke = Gate(failed()), Gate(BlockResult(Outcome.COMPLETED, value_false=True))
    world.executor.plays |= {"bad": bad, "wait": poke}
    async with world.serving() as engine:
        run = await launch(engine)
        await asyncio.gather(bad.entered.wait(), poke.entered.wait())
        bad.open.set()
        poke.open.set()
        assert await engine.wait(run.id, 10)
        found, blocks = await world.look(engine, run.id)
        assert (found.status, found.status_reason) == (RunStatus.FAILED, "block_failed: bad")
        assert statuses(blocks) == {"bad": S.FAILED, "wait": S.CANCELLED}


async def test_two_failures_at_once_end_a_run_whose_third_block_waits_for_a_worker(world: World) -> None:
    world.executor = Scripted(2)
    world.pipeline("etl", {"x": [], "y": [], "z": []})
    x, y = Gate(failed("x")), Gate(failed("y"))
    world.executor.plays |= {"x": x, "y": y}
    async with world.serving() as engine:
        run = await launch(engine)
        await asyncio.gather(x.entered.wait(), y.entered.wait())
        x.open.set()
        y.open.set()
        assert await engine.wait(run.id, 10)
        found, blocks = await world.look(engine, run.id)
        assert found.status is RunStatus.FAILED
        assert blocks["z"].status is S.CANCELLED
        assert world.executor.places._value == 2


async def test_a_run_that_is_ended_from_outside_gives_its_places_back_once(world: World) -> None:
    world.pipeline("etl", {"a": [], "b": ["a"]})
    gate = world.executor.plays["a"] = Gate()
    async with world.serving() as engine:
        run = await launch(engine)
        await gate.entered.wait()
        assert await engine.db.write(
            ownership.abort, run.id, engine.node_id, 1, reason="test", now=clock.now()
        )
        gate.open.set()
        await until(lambda: not engine.fleet.active)
        assert world.executor.places._value == 4


async def test_a_batch_of_launches_that_fails_starts_nothing_by_halves(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker that was held for the first try of a launch is another's by its second try."""
    world.executor = Scripted(1)
    world.pipeline("etl", {"a": []})
    others: list[asyncio.Task[Any]] = []
    async with world.serving() as engine:
        earlier, _ = await world.run(engine, "etl")
        take, write, ids = engine._run_ids.take, engine.db.write, iter(["new", "used"])

        async def take_a_used_one(count: int = 1) -> range:
            found = await take(count)
            return found if next(ids) == "new" else range(earlier.id, earlier.id + 1)

        async def write_while_another_waits(fn: Any, *args: Any, **kwargs: Any) -> Any:
            if fn is launching.launch and not others:
                others.append(asyncio.create_task(world.executor.acquire(None)))
                await asyncio.sleep(0)
            return await write(fn, *args, **kwargs)

        monkeypatch.setattr(engine._run_ids, "take", take_a_used_one)
        monkeypatch.setattr(engine.db, "write", write_while_another_waits)
        good, bad = await asyncio.gather(launch(engine), launch(engine), return_exceptions=True)
        assert isinstance(good, RunRow)
        assert isinstance(bad, Exception)
        (await others[0]).release()
        assert await engine.wait(good.id, 10)
        assert (await world.look(engine, good.id))[0].status is RunStatus.COMPLETED
        assert world.executor.places._value == 1


# Times


async def test_a_parked_run_ends_at_its_deadline(world: World) -> None:
    world.pipeline("etl", {"a": LATER, "b": ["a"]})
    world.triggers("etl", {"name": "once", "schedule_interval": "@once", "settings": {"timeout": 1}})
    world.executor.plays["a"] = fails
    async with world.serving(scheduling=True) as engine:
        run_id = await first_run(engine)
        assert await engine.wait(run_id, 5)
        found, blocks = await world.look(engine, run_id)
        assert (found.status, found.status_reason) == (RunStatus.FAILED, "timeout")
        assert statuses(blocks) == {"a": S.CANCELLED, "b": S.CANCELLED}


async def test_a_later_poke_that_hangs_ends_with_the_sensor_s_timeout(world: World) -> None:
    sensor = {"type": "sensor", "upstream_blocks": [], "configuration": {"interval": 0.05}, "timeout": 1}
    world.pipeline("etl", {"wait": sensor})
    pokes = 0

    async def second_hangs(call: BlockCall) -> BlockResult:
        nonlocal pokes
        pokes += 1
        if pokes > 1:
            await asyncio.Event().wait()
        return BlockResult(Outcome.COMPLETED, value_false=True)

    world.executor.plays["wait"] = second_hangs
    async with world.serving() as engine:
        found, blocks = await world.run(engine, "etl")
        assert found.status is RunStatus.FAILED
        assert [a.outcome for a in blocks["wait"].attempts] == [Outcome.TIMEOUT]


async def test_stop_during_a_retry_wait_beside_a_running_block(world: World) -> None:
    world.pipeline("etl", {"a": LATER, "slow": []})
    slow = Gate()
    world.executor.plays |= {"a": fails, "slow": slow}
    async with world.serving() as engine:
        run = await launch(engine)
        await slow.entered.wait()
        async with asyncio.timeout(10):
            while (await world.look(engine, run.id))[1]["a"].status is not S.QUEUED:
                await asyncio.sleep(0.01)
        await engine.cancel(run.id)
        assert await engine.wait(run.id, 5)
        assert statuses((await world.look(engine, run.id))[1]) == {"a": S.CANCELLED, "slow": S.CANCELLED}


async def test_a_block_run_limit_holds_along_chains(world: World) -> None:
    world.pipeline(
        "etl",
        {"a": [], "b": ["a"], "c": [], "d": ["c"], "e": [], "f": ["e", "b"]},
        concurrency_config={"block_run_limit": 1},
    )
    async with world.serving() as engine:
        assert (await world.run(engine, "etl"))[0].status is RunStatus.COMPLETED
        assert world.executor.at_once == 1
        assert world.executor.places._value == 4


# Triggers


async def test_always_on_goes_on_whichever_node_made_the_newest_id(world: World) -> None:
    world.pipeline("etl", {"a": []})
    world.triggers("etl", {"name": "always", "schedule_interval": "@always_on"})
    async with world.serving(scheduling=True) as engine:
        assert await engine.wait(await first_run(engine), 10)
        engine._run_ids._next, engine._run_ids._end = 50_000, 51_000
        await wait_for_runs(engine, 2)  # of a block of ids far up
        engine._run_ids._next, engine._run_ids._end = 5000, 6000  # and now of one below, as of another node
        await wait_for_runs(engine, 4)


async def wait_for_runs(engine: Engine, count: int) -> None:
    async with asyncio.timeout(12):
        while len(await engine.db.read(runs.page, limit=100)) < count:
            await asyncio.sleep(0.05)


async def test_always_on_comes_back_with_its_pipeline(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.scheduler.ticker.BROKEN_S", 0.5)
    world.pipeline("etl", {"a": []})
    world.triggers("etl", {"name": "always", "schedule_interval": "@always_on"})
    definition = world.folder / "pipelines" / "etl" / "metadata.yaml"
    good = definition.read_text()
    definition.write_text("blocks: 7\n")
    async with world.serving(scheduling=True) as engine:
        async with asyncio.timeout(10):
            while not await engine.db.read(
                lambda tx: tx.execute(text("SELECT 1 FROM schedule_slot")).first()
            ):
                await asyncio.sleep(0.05)
        definition.write_text(good)
        await wait_for_runs(engine, 1)


async def test_a_slot_that_cannot_be_written_hurts_no_other_trigger(world: World) -> None:
    world.pipeline("etl", {"a": []})
    each = {"schedule_interval": "* * * * * *"}
    world.triggers("etl", {"name": "bad", **each}, {"name": "good", **each})
    async with world.serving(scheduling=True) as engine:
        await wait_for_runs(engine, 1)
        page = {row.name: row for row in await engine.db.read(schedules.page, limit=9)}
        ahead = clock.now() + timedelta(seconds=3)
        taken = [
            slots.NewSlot(
                execution_date=ahead.replace(microsecond=0) + timedelta(seconds=n),
                outcome=SlotOutcome.MISSED,
                reason="x",
            )
            for n in range(5)
        ]
        bad = page["bad"]
        await engine.db.write(slots.write_slots, bad, taken, node_id="test", now=clock.now())
        async with asyncio.timeout(15):
            while (found := await engine.db.read(schedules.get, bad.id)) is None or found.error is None:
                await asyncio.sleep(0.05)
        before = len(await engine.db.read(runs.page, limit=100, schedule_id=[page["good"].id]))
        async with asyncio.timeout(10):
            while len(await engine.db.read(runs.page, limit=100, schedule_id=[page["good"].id])) <= before:
                await asyncio.sleep(0.05)
        await change(engine, "DELETE FROM schedule_slot WHERE decided_by = 'test'")


async def test_a_change_of_triggers_waits_for_a_database_that_is_away(
    postgres_url: str, world_at: Any
) -> None:
    async with wire(postgres_url) as proxy:
        world = world_at(proxy.url)
        world.pipeline("etl", {"a": []})
        async with world.serving() as engine:
            await engine.passes.sync()
            await proxy.down()
            world.triggers("etl", {"name": "new", "schedule_interval": "@daily"})
            with pytest.raises(StoreUnavailable):
                await engine.passes.sync()
            await proxy.up()
            await engine.passes.sync()
            assert [row.name for row in await engine.db.read(schedules.page, limit=9)] == ["new"]


async def test_a_clock_that_is_set_back_stops_no_timer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    class SetBack(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) - timedelta(hours=1)

    world.pipeline("etl", {"a": []})
    async with world.serving(scheduling=True) as engine:
        looks = 0
        refresh = engine.catalogue.refresh

        def count() -> bool:
            nonlocal looks
            looks += 1
            return refresh()

        monkeypatch.setattr(engine.catalogue, "refresh", count)
        await until(lambda: looks > 0)
        monkeypatch.setattr("apscheduler.schedulers.base.datetime", SetBack)
        monkeypatch.setattr(clock, "host_now", lambda: SetBack.now(UTC))
        looks = 0
        await until(lambda: looks > 3, 8)
        monkeypatch.undo()


async def test_nodes_of_long_ago_are_forgotten_unless_a_run_names_them(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        first = engine.node_id
        await world.run(engine, "etl")
    async with world.serving() as engine:
        idle = engine.node_id
    async with world.serving() as engine:
        assert await node_ids(engine) == {first, idle, engine.node_id}
        old = long_ago(engine, days=8)
        await change(engine, "UPDATE node SET ended_at = :at WHERE ended_at IS NOT NULL", at=old)
        await engine.passes.forget()
        assert await node_ids(engine) == {first, engine.node_id}


async def node_ids(engine: Engine) -> set[str]:
    return set(await engine.db.read(lambda tx: tx.execute(text("SELECT id FROM node")).scalars().all()))


async def test_more_runs_than_slots_are_taken_over_one_poll_after_the_other(world: World) -> None:
    world.pipeline("etl", {"a": LATER})
    world.executor.plays["a"] = fails
    async with world.serving() as engine:
        launched = [await launch(engine) for _ in range(7)]
        for run in launched:
            await parked(engine, run.id)
    async with world.serving(run_slots=2) as engine:
        for _ in range(4):
            await until(lambda: engine.fleet.free == 2)
            await engine.passes.poll()
        owned = {run_id for run_id, _ in await engine.db.read(runs.owned, engine.node_id)}
        assert owned == {run.id for run in launched}


async def test_a_cancel_that_meets_a_run_on_its_way_to_parking_is_not_lost(world: World) -> None:
    world.pipeline("etl", {"a": LATER})
    gate = world.executor.plays["a"] = Gate(failed())
    async with world.serving() as engine:  # without timers: no poll makes up for it
        run = await launch(engine)
        await gate.entered.wait()
        await engine.db.write(ownership.cancel, run.id, reason="elsewhere", now=clock.now())
        runner = engine.fleet.active[run.id]
        gate.open.set()
        await until_in_this_turn(runner._over.is_set)
        assert run.id in engine.fleet.active
        engine.fleet.cancel(run.id)
        assert await engine.wait(run.id, 5)
        assert (await world.look(engine, run.id))[0].status is RunStatus.CANCELLED


async def until_in_this_turn(condition: Callable[[], bool]) -> None:
    """As `until`, but at the very turn of the loop in which it comes true."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


async def test_a_trigger_that_cannot_be_decided_hurts_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.pipeline("etl", {"a": []})
    world.pipeline("odd", {"b": []})
    each = {"schedule_interval": "* * * * * *"}
    world.triggers("etl", {"name": "good", **each})
    world.triggers("odd", {"name": "bad", **each})
    async with world.serving(scheduling=True) as engine:
        get = engine.catalogue.get

        def stumbles(uuid: str) -> Any:
            if uuid == "odd":
                raise OverflowError("whatever nobody has thought of")
            return get(uuid)

        monkeypatch.setattr(engine.catalogue, "get", stumbles)

        async def has_error() -> bool:
            (odd,) = await engine.db.read(schedules.page, limit=9, pipeline_uuid=["odd"])
            return odd.error is not None

        async def count() -> int:
            return len(await engine.db.read(runs.page, limit=100, pipeline_uuid=["etl"]))

        async def goes_on() -> bool:
            return await count() > before

        await until(has_error, 15)
        before = await count()
        await until(goes_on, 15)
