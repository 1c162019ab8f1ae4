"""What becomes of a run when blocks are lost or the database is away at a bad moment; the simulation found each."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from app.errors import StoreUnavailable
from app.executors.base import Ask, BlockCall, BlockResult
from app.models.states import Outcome, RunStatus
from app.scheduler.launch import LaunchRequest
from app.store import ids, ownership
from tests.engine.conftest import World, done, failed


async def child_of(world: World) -> int:
    """As the block that began last: start the pipeline `child`, and begin to wait for its end."""
    await asyncio.sleep(0)  # the slot knows whom to ask once its task has begun
    on_ask = world.executor.slots[-1].on_ask
    answers: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()
    asked = {"pipeline_uuid": "child", "variables": {}, "wait": True}
    on_ask(Ask("trigger_pipeline", asked, answers.put_nowait))
    run_id: int = (await answers.get())["value"]["id"]
    on_ask(Ask("wait_for_run", {"run_id": run_id, "seconds": 60}, answers.put_nowait))
    return run_id


async def test_a_block_that_ends_while_the_database_is_away_stops_its_child_later(world: World) -> None:
    world.pipeline("parent", {"calls": []})
    world.pipeline("child", {"a": []})
    began, children = asyncio.Event(), []

    async def calls(call: BlockCall) -> BlockResult:
        children.append(await child_of(world))
        await began.wait()
        return failed()

    async def hangs(call: BlockCall) -> BlockResult:
        began.set()
        await asyncio.Event().wait()
        raise AssertionError

    world.executor.plays |= {"calls": calls, "a": hangs}
    async with world.serving() as engine:
        write, refused = engine.db.write, []

        async def shaky(fn: Any, *args: Any, **more: Any) -> Any:
            if fn is ownership.cancel and len(refused) < 2:
                refused.append(fn)
                raise StoreUnavailable("away")
            return await write(fn, *args, **more)

        engine.db.write = shaky  # type: ignore[method-assign]
        run, _blocks = await world.run(engine, "parent")
        assert (run.status, run.status_reason) == (RunStatus.FAILED, "block_failed: calls")
        assert await engine.wait(children[0], 20)
        child, _blocks = await world.look(engine, children[0])
    assert child.status is RunStatus.CANCELLED
    assert len(refused) == 2


async def test_a_block_that_is_lost_finds_its_child_again_which_has_gone_on(world: World) -> None:
    world.pipeline("parent", {"calls": []})
    world.pipeline("child", {"a": []})
    began, goes_on, children = asyncio.Event(), asyncio.Event(), []

    async def calls(call: BlockCall) -> BlockResult:
        children.append(await child_of(world))
        if call.attempt == 1:
            await began.wait()
            return BlockResult(Outcome.LOST)
        goes_on.set()
        return done()

    async def a(call: BlockCall) -> BlockResult:
        began.set()
        await goes_on.wait()
        return done()

    world.executor.plays |= {"calls": calls, "a": a}
    async with world.serving() as engine:
        run, _blocks = await world.run(engine, "parent")
        assert await engine.wait(children[0], 20)
        child, _blocks = await world.look(engine, children[0])
    assert run.status is RunStatus.COMPLETED
    assert children == [child.id, child.id]
    assert child.status is RunStatus.COMPLETED


async def test_what_cleans_up_after_a_failure_also_runs_when_the_node_dies_in_between(world: World) -> None:
    blocks: dict[str, Any] = {"bad": [], "slow": []}
    blocks["after"] = {"upstream_blocks": ["bad", "slow"], "trigger_rule": "all_done"}
    world.pipeline("p", blocks)
    slow_runs, is_killed = asyncio.Event(), asyncio.Event()

    async def bad(call: BlockCall) -> BlockResult:
        await slow_runs.wait()
        return failed()

    async def slow(call: BlockCall) -> BlockResult:
        slow_runs.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            is_killed.set()
            await asyncio.Event().wait()  # it takes its time to die
        raise AssertionError

    world.executor.plays |= {"bad": bad, "slow": slow}
    async with world.serving() as engine:
        launched = await engine.launch(LaunchRequest(pipeline_uuid="p"))
        await is_killed.wait()
    async with world.serving() as engine:
        assert await engine.wait(launched.id, 20)
        run, _blocks = await world.look(engine, launched.id)
    assert (run.status, run.status_reason) == (RunStatus.FAILED, "block_failed: bad")
    assert world.executor.ran()[-1] == "after"


async def test_items_are_planned_once_the_database_is_back(world: World) -> None:
    each = {"upstream_blocks": ["items"], "configuration": {"reduce_output": True}}
    world.pipeline("p", {"items": {"configuration": {"dynamic": True}}, "each": each})
    found = {"kind": "items", "count": 2, "values": [1, 2], "meta": [], "names": {}, "after": {}}

    async with world.serving() as engine:
        write, refused = engine.db.write, []

        async def shaky(fn: Any, *args: Any, **more: Any) -> Any:
            if fn is ids.take_block and len(refused) < 2:
                refused.append(fn)
                raise StoreUnavailable("away")
            return await write(fn, *args, **more)

        async def items(call: BlockCall) -> BlockResult:
            engine._block_ids._next = engine._block_ids._end  # the next ones are the database's to give
            engine.db.write = shaky  # type: ignore[method-assign]
            return BlockResult(Outcome.COMPLETED, outputs=[found])

        world.executor.plays["items"] = items
        run, _blocks = await world.run(engine, "p")
    assert run.status is RunStatus.COMPLETED
    assert len(refused) == 2


async def test_a_sensor_that_is_stopped_as_it_says_not_yet_has_completed_nothing(world: World) -> None:
    world.pipeline("p", {"s": {"type": "sensor"}})
    polled = asyncio.Event()

    async def s(call: BlockCall) -> BlockResult:
        polled.set()
        with suppress(asyncio.CancelledError):  # the stop comes when it has looked already
            await asyncio.Event().wait()
        return BlockResult(Outcome.COMPLETED, value_false=True)

    world.executor.plays["s"] = s
    async with world.serving() as engine:
        launched = await engine.launch(LaunchRequest(pipeline_uuid="p"))
        await polled.wait()
        await engine.cancel(launched.id)
        assert await engine.wait(launched.id, 20)
        run, blocks = await world.look(engine, launched.id)
    assert run.status is RunStatus.CANCELLED
    assert [attempt.outcome for attempt in blocks["s"].attempts] == [Outcome.CANCELLED]
