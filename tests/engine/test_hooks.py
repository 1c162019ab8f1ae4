"""Conditions, callbacks and trigger rules in the engine: what runs when, what is on record, what survives a crash."""

import asyncio
from typing import Any

import pytest

from app.executors.base import BlockCall, BlockResult
from app.models.states import BlockStatus, Outcome, RunStatus
from app.scheduler.launch import LaunchRequest
from tests.engine.conftest import Play, Scripted, World, done, failed, statuses, until

B = BlockStatus


def hooked(world: World, uuid: str, blocks: dict[str, Any], **hooks: dict[str, list[str]]) -> None:
    """A pipeline with `conditionals` and `callbacks`: hook -> the blocks it belongs to."""
    top = {}
    for kind, named in hooks.items():
        (world.folder / kind).mkdir(exist_ok=True)
        for name in named:
            (world.folder / kind / f"{name}.py").write_text("# played by the test\n")
        top[kind] = [
            {"uuid": name, "type": kind[:-1], "upstream_blocks": parents} for name, parents in named.items()
        ]
    world.pipeline(uuid, blocks, **top)


def by_hook(**plays: Any) -> Play:
    """What a block does (`own`) and what its hooks do, by the uuid of the hook."""

    async def play(call: BlockCall) -> BlockResult:
        name = call.hook.uuid if call.hook else "own"
        value = plays.get(name, done())
        return await value(call) if callable(value) else value

    return play


def hooks_of(world: World, block: str) -> list[tuple[str, str | None]]:
    return [(c.hook.uuid, c.hook.status) for c in world.executor.calls if c.hook and c.block.uuid == block]


async def test_a_condition_that_holds_lets_its_block_run(world: World) -> None:
    hooked(world, "p", {"a": [], "b": ["a"]}, conditionals={"weekday": ["b"]})
    async with world.serving() as engine:
        run, blocks = await world.run(engine, "p")
    assert run.status is RunStatus.COMPLETED
    (hook, own) = blocks["b"].attempts
    assert (hook.kind, hook.hook, hook.outcome) == ("hook", "condition:weekday", Outcome.COMPLETED)
    assert (own.kind, own.outcome) == ("block", Outcome.COMPLETED)
    calls = [c for c in world.executor.calls if c.block.uuid == "b"]
    assert calls[0].hook is not None and calls[0].inputs == calls[1].inputs, "it gets the block's own inputs"
    assert calls[1].tries == 1, "a condition is no try of the block"


@pytest.mark.parametrize("answer", ["false", "error"])
async def test_a_condition_that_does_not_hold_passes_on(world: World, answer: str) -> None:
    hooked(world, "p", {"a": [], "b": ["a"], "c": ["b"], "d": ["a"]}, conditionals={"weekday": ["b"]})
    said = BlockResult(Outcome.COMPLETED, value_false=True) if answer == "false" else failed("no calendar")
    world.executor.plays["b"] = by_hook(weekday=said)
    async with world.serving() as engine:
        run, blocks = await world.run(engine, "p")
    assert run.status is RunStatus.COMPLETED, "a condition is no failure"
    found = statuses(blocks)
    assert found == {"a": B.COMPLETED, "b": B.CONDITION_FAILED, "c": B.CONDITION_FAILED, "d": B.COMPLETED}
    reason = str(blocks["b"].status_reason)
    assert "weekday" in reason and ("no calendar" in reason) == (answer == "error"), "an exception is shown"


@pytest.mark.parametrize("holds", [True, False])
async def test_the_conditions_of_an_inline_block_run_in_a_worker(world: World, holds: bool) -> None:
    world.inline = Scripted()
    hooked(
        world,
        "p",
        {"a": [], "b": {"upstream_blocks": ["a"], "isolation": "inline"}},
        conditionals={"c": ["b"]},
    )
    world.executor.plays["b"] = by_hook(c=BlockResult(Outcome.COMPLETED, value_false=not holds))
    async with world.serving() as engine:
        run, blocks = await world.run(engine, "p")
    assert (run.status, hooks_of(world, "b")) == (RunStatus.COMPLETED, [("c", None)])
    assert [(c.block.uuid, c.hook) for c in world.inline.calls] == ([("b", None)] if holds else [])
    assert blocks["b"].status is (B.COMPLETED if holds else B.CONDITION_FAILED)
    assert world.executor.places._value == world.inline.places._value == 4, "every place is free again"


@pytest.mark.parametrize("answer", ["false", "error"])
async def test_a_crash_right_after_a_condition_does_not_let_its_block_run(world: World, answer: str) -> None:
    """The node goes when the journal has the first unit in which the condition is over."""
    hooked(world, "p", {"a": []}, conditionals={"never": ["a"]})
    said = BlockResult(Outcome.COMPLETED, value_false=True) if answer == "false" else failed("no calendar")
    world.executor.plays["a"] = by_hook(never=said)
    written = asyncio.Event()
    async with world.serving() as engine:
        backend = engine._journal._backend
        flush = backend.flush

        async def flush_once(units: Any) -> Any:
            if written.is_set():  # what comes after never reaches the disk
                await asyncio.Event().wait()
            answers = await flush(units)
            if any(finish.hook for unit in units for finish in unit.finishes):
                written.set()
            return answers

        backend.flush = flush_once  # type: ignore[method-assign]
        launched = await engine.launch(LaunchRequest(pipeline_uuid="p"))
        await asyncio.wait_for(written.wait(), 20)
        engine.fleet.leave()
    async with world.serving() as engine:
        assert await engine.wait(launched.id, 20)
        run, blocks = await world.look(engine, launched.id)
    assert (run.status, blocks["a"].status) == (RunStatus.COMPLETED, B.CONDITION_FAILED)
    assert [call for call in world.executor.calls if call.hook is None] == []


async def test_callbacks_are_told_how_their_block_ended(world: World) -> None:
    hooked(world, "p", {"a": [], "b": [], "c": ["b"]}, callbacks={"tell": ["a", "b", "c"]})
    world.executor.plays["b"] = by_hook(own=failed())
    async with world.serving() as engine:
        run, blocks = await world.run(engine, "p")
    assert run.status is RunStatus.FAILED
    assert hooks_of(world, "b") == [("tell", "failure")]
    assert hooks_of(world, "a") in ([("tell", "success")], []), "it may have been stopped by the failure"
    assert hooks_of(world, "c") == [], "nothing is told of a block that never began"
    told = next(c for c in world.executor.calls if c.hook and c.block.uuid == "b")
    assert told.hook is not None and told.hook.error is not None and told.hook.error["message"] == "boom"
    assert told.hook.run["pipeline_uuid"] == "p"
    assert blocks["b"].attempts[-1].hook == "callback:tell:failure"


async def test_a_callback_that_fails_changes_nothing(world: World) -> None:
    hooked(world, "p", {"a": [], "b": ["a"]}, callbacks={"tell": ["a"], "also": ["a"]})
    world.executor.plays["a"] = by_hook(tell=failed("no mail"))
    async with world.serving() as engine:
        run, blocks = await world.run(engine, "p")
    assert run.status is RunStatus.COMPLETED
    assert [(a.hook, a.outcome) for a in blocks["a"].attempts] == [
        (None, Outcome.COMPLETED),
        ("callback:tell:success", Outcome.FAILED),
        ("callback:also:success", Outcome.COMPLETED),
    ]


async def test_a_cancelled_block_tells_it_after_it_has_stopped(world: World) -> None:
    hooked(world, "p", {"a": []}, callbacks={"tell": ["a"]})
    started, events = asyncio.Event(), []

    async def hangs(call: BlockCall) -> BlockResult:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            events.append("stopped")
        raise AssertionError

    async def tells(call: BlockCall) -> BlockResult:
        assert call.hook is not None
        events.append(call.hook.status)
        return done()

    world.executor.plays["a"] = by_hook(own=hangs, tell=tells)
    async with world.serving() as engine:
        launched = await engine.launch(LaunchRequest(pipeline_uuid="p"))
        await started.wait()
        await engine.cancel(launched.id)
        assert await engine.wait(launched.id, 20)
        run, _blocks = await world.look(engine, launched.id)
    assert (run.status, events) == (RunStatus.CANCELLED, ["stopped", "cancelled"])


async def test_a_callback_that_hangs_ends_with_its_run(world: World) -> None:
    hooked(world, "p", {"a": []}, callbacks={"tell": ["a"]})

    async def hangs(call: BlockCall) -> BlockResult:
        await asyncio.Event().wait()
        raise AssertionError

    world.executor.plays["a"] = by_hook(tell=hangs)
    async with world.serving() as engine:
        launched = await engine.launch(LaunchRequest(pipeline_uuid="p"))
        await until(lambda: bool(hooks_of(world, "a")))
        await engine.cancel(launched.id)
        assert await engine.wait(launched.id, 20)
        run, blocks = await world.look(engine, launched.id)
    assert blocks["a"].status is B.COMPLETED, "it had ended before"
    assert blocks["a"].attempts[-1].outcome is Outcome.CANCELLED
    assert run.status is RunStatus.COMPLETED, "nothing of the pipeline itself was left to stop"


async def test_after_a_crash_the_callbacks_that_are_left_run(world: World) -> None:
    hooked(world, "p", {"a": []}, callbacks={"one": ["a"], "two": ["a"]})
    gone = asyncio.Event()

    async def hangs(call: BlockCall) -> BlockResult:
        gone.set()
        await asyncio.Event().wait()
        raise AssertionError

    world.executor.plays["a"] = by_hook(two=hangs)
    async with world.serving() as engine:
        launched = await engine.launch(LaunchRequest(pipeline_uuid="p"))
        await gone.wait()
    world.executor.plays["a"] = by_hook()
    world.executor.calls.clear()
    async with world.serving() as engine:
        assert await engine.wait(launched.id, 20)
        run, blocks = await world.look(engine, launched.id)
    assert run.status is RunStatus.COMPLETED
    assert hooks_of(world, "a") == [("two", "success")], "the block and the first callback are not done again"
    assert [a.outcome for a in blocks["a"].attempts] == [
        Outcome.COMPLETED,
        Outcome.COMPLETED,
        Outcome.LOST,
        Outcome.COMPLETED,
    ]


async def test_trigger_rules_decide_what_runs_after_a_failure(world: World) -> None:
    def ruled(rule: str, *upstream: str) -> dict[str, Any]:
        return {"upstream_blocks": list(upstream), "trigger_rule": rule}

    world.pipeline(
        "p",
        {
            "good": [],
            "bad": ["good"],
            "after": ["bad"],
            "cleanup": ruled("all_done", "bad", "after"),
            "alarm": ruled("one_failed", "bad"),
            "never": ruled("all_failed", "good"),
            "always": ruled("always", "bad"),
            "beside": ["good"],
        },
    )
    world.executor.plays["bad"] = by_hook(own=failed())
    async with world.serving() as engine:
        run, blocks = await world.run(engine, "p")
    assert run.status is RunStatus.FAILED
    found = statuses(blocks)
    assert found.pop("beside") in (B.COMPLETED, B.CANCELLED), "stopped by the failure unless it was faster"
    assert found == {
        "good": B.COMPLETED,
        "bad": B.FAILED,
        "after": B.UPSTREAM_FAILED,
        "cleanup": B.COMPLETED,
        "alarm": B.COMPLETED,
        "never": B.SKIPPED,
        "always": B.COMPLETED,
    }


async def test_cancel_stops_blocks_with_rules_too(world: World) -> None:
    started = asyncio.Event()

    async def hangs(call: BlockCall) -> BlockResult:
        started.set()
        await asyncio.Event().wait()
        raise AssertionError

    world.pipeline("p", {"a": [], "z": {"upstream_blocks": ["a"], "trigger_rule": "all_done"}})
    world.executor.plays["a"] = hangs
    async with world.serving() as engine:
        launched = await engine.launch(LaunchRequest(pipeline_uuid="p"))
        await started.wait()
        await engine.cancel(launched.id)
        assert await engine.wait(launched.id, 20)
        run, blocks = await world.look(engine, launched.id)
    assert run.status is RunStatus.CANCELLED
    assert statuses(blocks) == {"a": B.CANCELLED, "z": B.CANCELLED}
