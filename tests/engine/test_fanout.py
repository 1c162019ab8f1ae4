"""Blocks that run once an item beside what waits, fails or is limited: every run ends, and no limit is passed."""

import asyncio
from typing import Any

import pytest

from app.executors.base import BlockCall, BlockResult
from app.models.states import BlockStatus, Outcome, RunStatus
from app.scheduler.launch import LaunchRequest
from tests.engine.conftest import World, done, failed, statuses, until
from tests.engine.test_dynamic import dynamic, items, says

B = BlockStatus
NOT_YET = BlockResult(Outcome.COMPLETED, value_false=True)
ONE_AT_A_TIME = {"max_concurrent_child_block_runs": 1}


def sensor(*upstream: str, interval: float = 600) -> dict[str, Any]:
    return {"type": "sensor", "upstream_blocks": list(upstream), "configuration": {"interval": interval}}


async def test_a_block_that_cannot_be_planned_ends_what_waits_and_what_runs(world: World) -> None:
    cleanup = {"upstream_blocks": ["watch"], "trigger_rule": "all_done"}
    blocks = {"src": dynamic(), "each": ["src"], "watch": sensor(), "long": [], "cleanup": cleanup}
    world.pipeline("p", blocks, dynamic_blocks={"max_child_block_runs": 2})
    asked, running = asyncio.Event(), asyncio.Event()

    async def watch(call: BlockCall) -> BlockResult:
        asked.set()
        return NOT_YET

    async def long(call: BlockCall) -> BlockResult:
        running.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def src(call: BlockCall) -> BlockResult:
        await asyncio.gather(asked.wait(), running.wait())
        return items(1, 2, 3)

    world.executor.plays |= {"src": src, "watch": watch, "long": long}
    async with world.serving() as engine:
        run, rows = await world.run(engine, "p")
    assert (run.status, run.status_reason) == (RunStatus.FAILED, "block_failed: each")
    assert world.executor.kills == ["another block failed"]
    ended = {"src": B.COMPLETED, "each": B.FAILED, "watch": B.CANCELLED, "long": B.CANCELLED}
    assert statuses(rows) == ended | {"cleanup": B.COMPLETED}


async def test_a_sensor_that_a_failure_ends_meets_the_rule_below_it(world: World) -> None:
    cleanup = {"upstream_blocks": ["watch"], "trigger_rule": "all_done"}
    world.pipeline("p", {"bad": [], "watch": sensor(), "cleanup": cleanup})
    asked = asyncio.Event()

    async def watch(call: BlockCall) -> BlockResult:
        asked.set()
        return NOT_YET

    async def bad(call: BlockCall) -> BlockResult:
        await asked.wait()
        return failed()

    world.executor.plays |= {"bad": bad, "watch": watch}
    async with world.serving() as engine:
        run, rows = await world.run(engine, "p")
    assert (run.status, run.status_reason) == (RunStatus.FAILED, "block_failed: bad")
    assert statuses(rows) == {"bad": B.FAILED, "watch": B.CANCELLED, "cleanup": B.COMPLETED}


async def test_children_with_a_rule_that_wait_for_their_turn_run_in_a_run_that_fails(world: World) -> None:
    src = {**dynamic("bad"), "trigger_rule": "all_done"}
    each = {"upstream_blocks": ["src"], "trigger_rule": "all_done"}
    world.pipeline("p", {"bad": [], "src": src, "each": each}, dynamic_blocks=ONE_AT_A_TIME)
    world.executor.plays |= {"bad": says(failed()), "src": says(items(0, 1, 2))}
    async with world.serving() as engine:
        run, rows = await world.run(engine, "p")
    assert (run.status, run.status_reason) == (RunStatus.FAILED, "block_failed: bad")
    assert [rows[f"each:{n}"].status for n in range(3)] == [B.COMPLETED] * 3


@pytest.mark.parametrize("kind", ["custom", "sensor"])
async def test_a_child_whose_time_has_come_waits_for_its_turn(world: World, kind: str) -> None:
    """Each is tried three times: a block fails, a sensor says "not yet"."""
    again = sensor("src", interval=0.01)
    if kind == "custom":
        again = {"upstream_blocks": ["src"], "retry_config": {"retries": 2, "delay": 0}}
    world.pipeline("p", {"src": dynamic(), "each": again}, dynamic_blocks=ONE_AT_A_TIME)
    tries: dict[int, int] = {}

    async def each(call: BlockCall) -> BlockResult:
        assert call.item is not None
        tries[call.item] = tries.get(call.item, 0) + 1
        await asyncio.sleep(0.02)
        if tries[call.item] == 3:
            return done()
        return NOT_YET if kind == "sensor" else failed()

    world.executor.plays |= {"src": says(items(0, 1, 2)), "each": each}
    async with world.serving() as engine:
        run, rows = await world.run(engine, "p")
    assert run.status is RunStatus.COMPLETED, statuses(rows)
    assert tries == {0: 3, 1: 3, 2: 3}
    assert world.executor.at_once == 1
    assert [len(rows[f"each:{n}"].attempts) for n in range(3)] == [1 if kind == "sensor" else 3] * 3


async def test_the_limit_of_children_at_once_holds_over_a_restart(world: World) -> None:
    world.pipeline("p", {"src": dynamic(), "each": ["src"]}, dynamic_blocks=ONE_AT_A_TIME)
    opened = asyncio.Event()

    async def each(call: BlockCall) -> BlockResult:
        await opened.wait()
        await asyncio.sleep(0.02)
        return done()

    world.executor.plays |= {"src": says(items(0, 1, 2)), "each": each}
    async with world.serving() as engine:
        launched = await engine.launch(LaunchRequest(pipeline_uuid="p"))
        await until(lambda: "each" in world.executor.ran())
    opened.set()
    async with world.serving() as engine:
        assert await engine.wait(launched.id, 20)
        run, _rows = await world.look(engine, launched.id)
    assert (run.status, world.executor.at_once) == (RunStatus.COMPLETED, 1)
