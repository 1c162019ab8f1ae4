"""Conditions and callbacks beside stops, takeovers and many children: none runs on, none is late, none costs much."""

import asyncio
from typing import Any

import pytest

from app.executors.base import BlockCall, BlockResult
from app.models.states import BlockStatus, Outcome, RunStatus
from app.scheduler import blockhooks
from app.scheduler.launch import LaunchRequest
from tests.engine.conftest import World, done, until
from tests.engine.test_dynamic import dynamic, items, reduced, says
from tests.engine.test_hooks import by_hook, hooked, hooks_of


@pytest.mark.parametrize("kind", ["conditionals", "callbacks"])
async def test_a_hook_does_not_begin_in_a_run_that_was_stopped_meanwhile(world: World, kind: str) -> None:
    """The stop comes while the start of the hook is on its way to disk."""
    hooked(world, "p", {"a": []}, **{kind: {"hook": ["a"]}})

    async def hangs(call: BlockCall) -> BlockResult:
        await asyncio.Event().wait()
        raise AssertionError

    world.executor.plays["a"] = by_hook(hook=hangs)
    starting, stopped = asyncio.Event(), asyncio.Event()
    async with world.serving() as engine:
        backend = engine._journal._backend
        flush = backend.flush

        async def slow(units: Any) -> Any:
            if any(start.hook for unit in units for start in unit.starts):
                starting.set()
                await stopped.wait()
            return await flush(units)

        backend.flush = slow  # type: ignore[method-assign]
        launched = await engine.launch(LaunchRequest(pipeline_uuid="p"))
        await asyncio.wait_for(starting.wait(), 20)
        await engine.cancel(launched.id)
        stopped.set()
        assert await engine.wait(launched.id, 10)
        run, blocks = await world.look(engine, launched.id)
    assert hooks_of(world, "a") == []
    (hook,) = [attempt for attempt in blocks["a"].attempts if attempt.hook]
    assert hook.outcome is Outcome.CANCELLED
    ended = BlockStatus.CANCELLED if kind == "conditionals" else BlockStatus.COMPLETED
    assert (run.status, blocks["a"].status) == (RunStatus(ended), ended)


async def test_a_callback_that_is_left_does_not_wait_for_the_sensor_beside_it(world: World) -> None:
    sensor = {"type": "sensor", "upstream_blocks": [], "configuration": {"interval": 600}}
    hooked(world, "p", {"a": [], "watch": sensor}, callbacks={"tell": ["a"]})
    gone = asyncio.Event()

    async def hangs(call: BlockCall) -> BlockResult:
        gone.set()
        await asyncio.Event().wait()
        raise AssertionError

    world.executor.plays |= {
        "a": by_hook(tell=hangs),
        "watch": says(BlockResult(Outcome.COMPLETED, value_false=True)),
    }
    async with world.serving() as engine:
        launched = await engine.launch(LaunchRequest(pipeline_uuid="p"))
        await gone.wait()
        await until(lambda: "watch" in world.executor.ran())
    world.executor.plays["a"] = by_hook()
    world.executor.calls.clear()
    async with world.serving() as engine:
        await until(lambda: launched.id in engine.fleet.parking and launched.id not in engine.fleet.active)
        assert hooks_of(world, "a") == [("tell", "success")]
        assert world.executor.ran() == ["a"], "nothing else was done for it"
        await engine.cancel(launched.id)
        assert await engine.wait(launched.id, 10)


async def test_a_hook_costs_the_ends_of_other_blocks_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Callbacks are looked for at what has ended, not at all that there is."""
    many, looks = 40, 0
    due = blockhooks.due_callbacks

    def counted(*args: Any) -> Any:
        nonlocal looks
        looks += 1
        return due(*args)

    monkeypatch.setattr(blockhooks, "due_callbacks", counted)
    hooked(
        world, "p", {"src": dynamic(), "each": reduced("src"), "end": ["each"]}, callbacks={"tell": ["end"]}
    )
    world.executor.plays |= {"src": says(items(*range(many))), "each": says(done()), "end": by_hook()}
    async with world.serving() as engine:
        run, _blocks = await world.run(engine, "p")
    assert (run.status, hooks_of(world, "end")) == (RunStatus.COMPLETED, [("tell", "success")])
    assert looks < 2 * many
