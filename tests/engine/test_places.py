"""Places that blocks lend while they wait for a run: who stops does not wait for them, and none is given back twice."""

import asyncio

import pytest

from app.executors.base import Ask, BlockCall, BlockResult
from app.models.states import BlockStatus, RunStatus
from app.scheduler.launch import LaunchRequest
from tests.engine.conftest import Scripted, World, done, failed, until


@pytest.mark.parametrize("ends", ["cancelled", "failed"])
async def test_a_block_that_lent_its_place_ends_without_it(world: World, ends: str) -> None:
    """One place: `waits` lends it to `other`, which keeps it longer than `waits` lives."""
    world.executor = Scripted(1)
    cleanup = {"upstream_blocks": ["waits"], "trigger_rule": "all_done"}
    world.pipeline("p", {"waits": [], "cleanup": cleanup})
    for uuid in ("other", "child"):
        world.pipeline(uuid, {uuid: []})
    children: list[int] = []
    asks, fails, opened = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def waits(call: BlockCall) -> BlockResult:
        mine = asyncio.current_task()
        (slot,) = [slot for slot in world.executor.slots if slot._task is mine]
        await asks.wait()
        slot.on_ask(Ask("wait_for_run", {"run_id": children[0], "seconds": 1000}, lambda reply: None))
        await fails.wait()
        return failed()

    async def other(call: BlockCall) -> BlockResult:
        await opened.wait()
        return done()

    async def has_failed() -> bool:
        return (await world.look(engine, runs[0].id))[1]["waits"].status is BlockStatus.FAILED

    world.executor.plays |= {"waits": waits, "other": other}
    async with world.serving() as engine:
        runs = [await engine.launch(LaunchRequest(pipeline_uuid=uuid)) for uuid in ("p", "other", "child")]
        children.append(runs[2].id)
        asks.set()
        await until(lambda: "other" in world.executor.ran())
        if ends == "cancelled":
            await engine.cancel(runs[0].id)
            assert await engine.wait(runs[0].id, 10)
        else:
            fails.set()
            await until(has_failed)
        assert world.executor.ran() == ["waits", "other"], "the place is still another's"
        opened.set()
        for run in runs:
            assert await engine.wait(run.id, 10)
        found = [(await world.look(engine, run.id))[0].status for run in runs]
        assert found[:2] == [RunStatus(ends), RunStatus.COMPLETED]
        assert found[2] is RunStatus.CANCELLED, "it was stopped with what waited for it"
        assert world.executor.ran() == ["waits", "other"] + (["cleanup"] if ends == "failed" else [])
        await until(lambda: not engine.fleet.active)
    assert world.executor.places._value == 1
