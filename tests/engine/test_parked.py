"""Runs that only wait are taken over without a run slot, and go on at their time."""

import asyncio

from app import clock
from app.executors.base import BlockCall, BlockResult
from app.models.states import BlockStatus, Outcome, RunStatus
from app.scheduler.launch import LaunchRequest
from app.store import nodes, runs
from tests.engine.conftest import World, until


async def test_more_parked_runs_than_slots_are_parked_again_at_once(world: World) -> None:
    world.pipeline(
        "wait", {"w": {"type": "sensor", "upstream_blocks": [], "configuration": {"interval": 600}}}
    )

    async def never(call: BlockCall) -> BlockResult:
        return BlockResult(Outcome.COMPLETED, value_false=True)

    world.executor.plays["w"] = never
    async with world.serving(run_slots=5) as engine:
        await asyncio.gather(*(engine.launch(LaunchRequest(pipeline_uuid="wait")) for _ in range(30)))
        await until(lambda: len(engine.fleet.parking) == 30)
    pokes = len(world.executor.calls)
    async with world.serving(run_slots=5) as engine:
        assert len(engine.fleet.parking) == 30, "before the start was over"
        assert len(world.executor.calls) == pokes, "nobody was poked for it"
        for run in await engine.db.read(runs.page, limit=50):
            assert run.epoch == 2
            await engine.cancel(run.id)
            assert await engine.wait(run.id, 10)


async def test_a_parked_run_with_a_ready_block_goes_on_instead(world: World) -> None:
    sensor = {"type": "sensor", "upstream_blocks": [], "configuration": {"interval": 600}}
    world.pipeline("mixed", {"w": sensor, "a": [], "b": ["a"]})

    async def never(call: BlockCall) -> BlockResult:
        return BlockResult(Outcome.COMPLETED, value_false=True)

    world.executor.plays["w"] = never
    async with world.serving() as engine:
        launched = await engine.launch(LaunchRequest(pipeline_uuid="mixed"))
        await until(lambda: launched.id in engine.fleet.parking)
        run, blocks = await world.look(engine, launched.id)
        assert blocks["b"].status is BlockStatus.COMPLETED
        # As if the node had died after the end of `a` was on disk and before `b` had started.
        await engine.db.write(_forget_b, blocks["b"].id)
        await engine.db.write(nodes.fence, [engine.node_id], now=clock.now())
        world.executor.calls.clear()
    async with world.serving() as engine:
        await until(lambda: "b" in world.executor.ran())
        await until(lambda: launched.id in engine.fleet.parking)
        await engine.cancel(run.id)
        assert await engine.wait(run.id, 10)
        ended, blocks = await world.look(engine, run.id)
        assert ended.status is RunStatus.CANCELLED
        assert blocks["b"].status is BlockStatus.COMPLETED


def _forget_b(tx: object, block_run_id: int) -> None:
    from app.store.sql import ATTEMPT, BLOCK

    tx.execute(ATTEMPT.delete().where(ATTEMPT.c.block_run_id == block_run_id))  # type: ignore[attr-defined]
    values = {"status": "initial", "attempt": 0, "started_at": None, "completed_at": None, "outputs": None}
    tx.execute(BLOCK.update().where(BLOCK.c.id == block_run_id).values(**values))  # type: ignore[attr-defined]


async def test_a_cancel_that_comes_before_the_run_has_begun_here_ends_it(world: World) -> None:
    world.pipeline("etl", {"a": [], "b": ["a"]})
    async with world.serving() as engine:
        for _ in range(20):
            launched = await engine.launch(LaunchRequest(pipeline_uuid="etl"))
            engine.fleet.cancel(launched.id)  # its task has not had a turn yet
            await engine.cancel(launched.id)
            assert await engine.wait(launched.id, 10)
            run, _ = await world.look(engine, launched.id)
            assert run.status in (RunStatus.CANCELLED, RunStatus.COMPLETED)
            assert run.status_reason != "internal_error"
