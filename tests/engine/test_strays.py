"""Own runs that nobody drives are found; those that are on their way in, or have just ended, are none."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from app.executors.base import BlockCall, BlockResult
from app.models.states import Outcome, RunStatus
from app.scheduler.launch import LaunchRequest
from app.store import launch, runs
from tests.engine.conftest import World, done


async def test_a_launch_whose_answer_is_slow_is_no_stray(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world.pipeline("p", {"a": []})
    committed, answer = asyncio.Event(), asyncio.Event()
    async with world.serving() as engine:
        write = engine.db.write

        async def slow(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            found = await write(fn, *args, **kwargs)
            if fn is launch.launch:  # it is on disk, and whether that is so is still being asked
                committed.set()
                await answer.wait()
            return found

        monkeypatch.setattr(engine.db, "write", slow)
        launching = asyncio.create_task(engine.launch(LaunchRequest(pipeline_uuid="p")))
        await committed.wait()
        for _ in range(3):
            await engine.passes.recover()
        answer.set()
        launched = await launching
        assert await engine.wait(launched.id, 20)
        run, blocks = await world.look(engine, launched.id)
    assert (run.status, run.epoch) == (RunStatus.COMPLETED, 1)
    assert [attempt.outcome for attempt in blocks["a"].attempts] == [Outcome.COMPLETED]
    assert "driven by nobody" not in caplog.text


async def test_a_run_that_ended_while_it_was_looked_for_is_no_stray(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world.pipeline("p", {"a": []})
    async with world.serving() as engine:
        run, _blocks = await world.run(engine, "p")
        read, looks = engine.db.read, 0

        async def late(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            nonlocal looks
            if fn is runs.owned and looks < 2:  # what was so a moment ago
                looks += 1
                return [(run.id, 1)]
            return await read(fn, *args, **kwargs)

        monkeypatch.setattr(engine.db, "read", late)
        await engine.passes.recover()
        await engine.passes.recover()
    assert looks == 2 and "driven by nobody" not in caplog.text


async def test_a_run_whose_wake_up_was_lost_goes_on(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.pipeline("p", {"a": []})
    running, again = asyncio.Event(), asyncio.Event()

    async def waits(call: BlockCall) -> BlockResult:
        running.set()
        await again.wait()
        return done()

    world.executor.plays["a"] = waits
    async with world.serving() as engine:
        launched = await engine.launch(LaunchRequest(pipeline_uuid="p"))
        await running.wait()
        engine.fleet.active.pop(launched.id).leave()  # as if it had been forgotten
        again.set()
        await engine.passes.recover()
        await engine.passes.recover()
        assert await engine.wait(launched.id, 20)
        run, _blocks = await world.look(engine, launched.id)
    assert run.status is RunStatus.COMPLETED and "driven by nobody" in caplog.text
