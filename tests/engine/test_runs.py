"""How runs go: order, parallelism, failure, retry, timeout, cancel. On both databases."""

import asyncio
from typing import Any

import pytest

from app.errors import InvalidInput, PipelineInvalid, PipelineNotFound, RunNotFound, UnknownBlock
from app.events import BlockEnded, BlockStarted, RunCreated, RunEnded, RunStarted
from app.executors.base import BlockCall, BlockResult
from app.models.states import BlockStatus, Outcome, RunStatus
from app.scheduler.launch import LaunchRequest
from app.store import logs, runs
from tests.engine.conftest import World, done, failed, statuses, until

S = BlockStatus


class Gate:
    """A block that runs until the test opens it."""

    def __init__(self) -> None:
        self.entered, self.open = asyncio.Event(), asyncio.Event()

    async def __call__(self, call: BlockCall) -> BlockResult:
        self.entered.set()
        await self.open.wait()
        return done(1)


async def test_a_chain_runs_in_order_and_outputs_go_downstream(world: World) -> None:
    world.pipeline("etl", {"a": [], "b": ["a"], "c": ["b"]})
    async with world.serving() as engine:
        run, blocks = await world.run(engine, "etl", variables={"x": 1})
        assert (run.status, run.status_reason) == (RunStatus.COMPLETED, None)
        assert world.executor.ran() == ["a", "b", "c"]
        assert [b.outputs for b in blocks.values()] == [[{"kind": "json", "value": n}] for n in "abc"]
        assert world.executor.calls[1].inputs == [("a", [{"kind": "json", "value": "a"}])]
        assert world.executor.calls[0].kwargs["x"] == 1


async def test_independent_branches_run_at_the_same_time(world: World) -> None:
    world.pipeline("fan", {"a": [], "left": ["a"], "right": ["a"], "z": ["left", "right"]})
    left, right = Gate(), Gate()
    world.executor.plays |= {"left": left, "right": right}
    async with world.serving() as engine:
        launched = await engine.launch(LaunchRequest(pipeline_uuid="fan"))
        await asyncio.gather(left.entered.wait(), right.entered.wait())
        left.open.set()
        right.open.set()
        assert await engine.wait(launched.id, 10)
        assert world.executor.ran()[-1] == "z"


async def test_listeners_are_told_in_order(world: World) -> None:
    world.pipeline("etl", {"a": [], "b": ["a"]})
    async with world.serving() as engine:
        with engine.bus.subscribe() as events:
            await world.run(engine, "etl")
            kinds = [type(e) for e in events.take() if type(e).__name__ != "LogWritten"]
        assert kinds == [RunCreated, RunStarted, BlockStarted, BlockEnded, BlockStarted, BlockEnded, RunEnded]


async def test_a_failure_stops_the_run_and_kills_what_runs(world: World) -> None:
    world.pipeline("etl", {"bad": [], "below": ["bad"], "slow": [], "after": ["slow"]})
    slow = Gate()

    async def fails(call: BlockCall) -> BlockResult:
        await slow.entered.wait()
        return failed()

    world.executor.plays |= {"bad": fails, "slow": slow}
    async with world.serving() as engine:
        run, blocks = await world.run(engine, "etl")
        assert (run.status, run.status_reason) == (RunStatus.FAILED, "block_failed: bad")
        assert statuses(blocks) == {
            "bad": S.FAILED,
            "below": S.UPSTREAM_FAILED,
            "slow": S.CANCELLED,
            "after": S.CANCELLED,
        }
        assert blocks["bad"].error is not None
        assert blocks["bad"].error["line"] == 3
        assert world.executor.kills == ["another block failed"]


async def test_allow_blocks_to_fail_lets_other_branches_go_on(world: World) -> None:
    world.pipeline("etl", {"bad": [], "below": ["bad"], "good": [], "after": ["good"]})
    world.triggers(
        "etl", {"name": "once", "schedule_interval": "@once", "settings": {"allow_blocks_to_fail": True}}
    )

    async def fails(call: BlockCall) -> BlockResult:
        return failed()

    world.executor.plays["bad"] = fails
    async with world.serving(scheduling=True) as engine:
        run_id = await first_run(engine)
        assert await engine.wait(run_id, 10)
        run, blocks = await world.look(engine, run_id)
        assert run.status is RunStatus.FAILED
        assert statuses(blocks) == {
            "bad": S.FAILED,
            "below": S.UPSTREAM_FAILED,
            "good": S.COMPLETED,
            "after": S.COMPLETED,
        }


async def first_run(engine: Any) -> int:
    async with asyncio.timeout(10):
        while not (found := await engine.db.read(runs.page, limit=1)):
            await asyncio.sleep(0.01)
    return int(found[0].id)


async def test_a_failed_attempt_is_tried_again_and_parked_meanwhile(world: World) -> None:
    retry = {"retries": 2, "delay": 0.3, "exponential_backoff": False}
    world.pipeline("etl", {"a": {"upstream_blocks": [], "retry_config": retry}, "b": ["a"]})

    async def second_time(call: BlockCall) -> BlockResult:
        return done(1) if call.attempt == 2 else failed()

    world.executor.plays["a"] = second_time
    async with world.serving() as engine:
        launched = await engine.launch(LaunchRequest(pipeline_uuid="etl"))
        await until(lambda: launched.id in engine.fleet.parking)
        assert engine.fleet.free == engine.settings.run_slots, "a parked run takes no run slot"
        assert await engine.wait(launched.id, 10)
        run, blocks = await world.look(engine, launched.id)
        assert run.status is RunStatus.COMPLETED
        assert [a.outcome for a in blocks["a"].attempts] == [Outcome.FAILED, Outcome.COMPLETED]
        assert run.epoch == 1, "coming back from parking is no takeover"


async def test_a_retry_waits_beside_a_running_block_without_waiting_for_it(world: World) -> None:
    retry = {"retries": 1, "delay": 0.05}
    world.pipeline("etl", {"a": {"upstream_blocks": [], "retry_config": retry}, "slow": []})
    slow, again = Gate(), asyncio.Event()

    async def second_time(call: BlockCall) -> BlockResult:
        if call.attempt == 1:
            return failed()
        again.set()
        return done(1)

    world.executor.plays |= {"a": second_time, "slow": slow}
    async with world.serving() as engine:
        launched = await engine.launch(LaunchRequest(pipeline_uuid="etl"))
        await asyncio.wait_for(again.wait(), 5)
        slow.open.set()
        assert await engine.wait(launched.id, 10)


async def test_retries_end(world: World) -> None:
    retry = {"retries": 2, "delay": 0.01, "max_delay": 0.01}
    world.pipeline("etl", {"a": {"upstream_blocks": [], "retry_config": retry}})

    async def fails(call: BlockCall) -> BlockResult:
        return failed(f"try {call.attempt}")

    world.executor.plays["a"] = fails
    async with world.serving() as engine:
        run, blocks = await world.run(engine, "etl")
        assert run.status is RunStatus.FAILED
        assert blocks["a"].attempt == 3
        assert blocks["a"].error is not None
        assert blocks["a"].error["message"] == "try 3"


async def test_a_lost_worker_costs_no_retry_but_not_for_ever(world: World) -> None:
    world.pipeline("etl", {"a": [], "b": []})

    async def lost_once(call: BlockCall) -> BlockResult:
        return BlockResult(Outcome.LOST) if call.attempt == 1 else done(1)

    async def always_lost(call: BlockCall) -> BlockResult:
        return BlockResult(Outcome.LOST, evidence={"signal": 9})

    world.executor.plays |= {"a": lost_once, "b": always_lost}
    async with world.serving() as engine:
        _, blocks = await world.run(engine, "etl")
        assert blocks["a"].status is S.COMPLETED
        assert blocks["b"].status is S.FAILED
        assert blocks["b"].status_reason == "recovery limit: lost 5 times"


async def test_a_block_timeout_kills_and_fails(world: World) -> None:
    world.pipeline("etl", {"a": {"upstream_blocks": [], "timeout": 1}})
    world.executor.plays["a"] = Gate()
    async with world.serving() as engine:
        run, blocks = await world.run(engine, "etl")
        assert run.status is RunStatus.FAILED
        assert blocks["a"].attempts[0].outcome is Outcome.TIMEOUT
        assert blocks["a"].attempts[0].evidence == {"reason": "timeout of 1 s"}


@pytest.mark.parametrize("status", ["failed", "cancelled"])
async def test_a_run_timeout_ends_the_run(world: World, status: str) -> None:
    world.pipeline("etl", {"a": [], "b": ["a"]})
    world.triggers(
        "etl",
        {"name": "once", "schedule_interval": "@once", "settings": {"timeout": 1, "timeout_status": status}},
    )
    world.executor.plays["a"] = Gate()
    async with world.serving(scheduling=True) as engine:
        run_id = await first_run(engine)
        assert await engine.wait(run_id, 10)
        run, blocks = await world.look(engine, run_id)
        assert (run.status, run.status_reason) == (status, "timeout")
        assert statuses(blocks) == {"a": S.CANCELLED, "b": S.CANCELLED}


async def test_cancel_stops_a_running_run(world: World) -> None:
    world.pipeline("etl", {"a": [], "b": ["a"]})
    gate = Gate()
    world.executor.plays["a"] = gate
    async with world.serving() as engine:
        launched = await engine.launch(LaunchRequest(pipeline_uuid="etl"))
        await gate.entered.wait()
        await engine.cancel(launched.id)
        assert await engine.wait(launched.id, 10)
        run, blocks = await world.look(engine, launched.id)
        assert (run.status, run.status_reason) == (RunStatus.CANCELLED, "cancel requested")
        assert statuses(blocks) == {"a": S.CANCELLED, "b": S.CANCELLED}
        assert await engine.cancel(launched.id) == run, "a finished run is returned unchanged"


async def test_cancel_reaches_a_parked_run(world: World) -> None:
    world.pipeline("etl", {"a": {"upstream_blocks": [], "retry_config": {"retries": 1, "delay": 600}}})

    async def fails(call: BlockCall) -> BlockResult:
        return failed()

    world.executor.plays["a"] = fails
    async with world.serving() as engine:
        launched = await engine.launch(LaunchRequest(pipeline_uuid="etl"))
        await until(lambda: launched.id in engine.fleet.parking)
        await engine.cancel(launched.id)
        assert await engine.wait(launched.id, 5)
        run, _ = await world.look(engine, launched.id)
        assert run.status is RunStatus.CANCELLED


async def test_cancel_reaches_a_run_that_waits_for_a_worker(world: World) -> None:
    world.pipeline("hog", {"h1": [], "h2": [], "h3": [], "h4": []})
    world.pipeline("etl", {"a": []})
    gates = {name: Gate() for name in ("h1", "h2", "h3", "h4")}
    world.executor.plays |= gates
    async with world.serving() as engine:
        hog = await engine.launch(LaunchRequest(pipeline_uuid="hog"))
        await asyncio.gather(*(gate.entered.wait() for gate in gates.values()))
        waiting = await engine.launch(LaunchRequest(pipeline_uuid="etl"))
        await engine.cancel(waiting.id)
        assert await engine.wait(waiting.id, 5)
        for gate in gates.values():
            gate.open.set()
        assert await engine.wait(hog.id, 5)
        assert "a" not in world.executor.ran()
        assert world.executor.places._value == 4, "every place was given back"


async def test_a_sensor_is_poked_until_true_and_parked_between(world: World) -> None:
    sensor = {"type": "sensor", "upstream_blocks": [], "configuration": {"interval": 0.1}}
    world.pipeline("etl", {"wait": sensor, "a": ["wait"]})
    pokes = 0

    async def third_time(call: BlockCall) -> BlockResult:
        nonlocal pokes
        pokes += 1
        return BlockResult(Outcome.COMPLETED, value_false=pokes < 3)

    world.executor.plays["wait"] = third_time
    async with world.serving() as engine:
        run, blocks = await world.run(engine, "etl")
        assert run.status is RunStatus.COMPLETED
        assert pokes == 3
        assert len(blocks["wait"].attempts) == 1, "one attempt over all pokes"


async def test_skipped_sensors_count_as_satisfied(world: World) -> None:
    world.pipeline("etl", {"wait": {"type": "sensor", "upstream_blocks": []}, "a": ["wait"]})
    async with world.serving() as engine:
        run, blocks = await world.run(engine, "etl", skip_sensors=True)
        assert run.status is RunStatus.COMPLETED
        assert statuses(blocks) == {"wait": S.SKIPPED, "a": S.COMPLETED}
        assert world.executor.ran() == ["a"]


async def test_one_block_runs_alone_on_what_an_earlier_run_left(world: World) -> None:
    world.pipeline("etl", {"a": [], "b": ["a"], "c": ["b"]})
    async with world.serving() as engine:
        with pytest.raises(InvalidInput, match="'a'"):
            await engine.launch(LaunchRequest(pipeline_uuid="etl", block_uuid="b"))
        await world.run(engine, "etl")
        world.executor.calls.clear()
        run, blocks = await world.run(engine, "etl", block_uuid="b")
        assert run.status is RunStatus.COMPLETED
        assert world.executor.ran() == ["b"]
        assert world.executor.calls[0].inputs == [("a", [{"kind": "json", "value": "a"}])]
        assert list(blocks) == ["a", "b"]


async def test_log_lines_are_kept_in_order_with_the_reason_of_a_failure(world: World) -> None:
    world.pipeline("etl", {"a": []})

    async def fails(call: BlockCall) -> BlockResult:
        return failed("no such thing")

    world.executor.plays["a"] = fails
    async with world.serving() as engine:
        run, _ = await world.run(engine, "etl")
        lines = await engine.db.read(logs.page, run.id, after=None, limit=10)
        assert [line.text for line in lines] == ["a attempt 1", "ValueError: no such thing"]
        assert await engine.db.read(logs.page, run.id, after=lines[0].id, limit=10) == lines[1:]


async def test_a_run_with_no_blocks_completes(world: World) -> None:
    world.pipeline("empty", {})
    async with world.serving() as engine:
        try:
            run, _ = await world.run(engine, "empty")
        except PipelineInvalid:
            return  # refused at the door is as good
        assert run.status is RunStatus.COMPLETED


async def test_what_cannot_run_is_refused_and_leaves_nothing(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        for error, request in (
            (PipelineNotFound, LaunchRequest(pipeline_uuid="nope")),
            (UnknownBlock, LaunchRequest(pipeline_uuid="etl", block_uuid="nope")),
            (InvalidInput, LaunchRequest(pipeline_uuid="etl", variables={"x": "\0"})),
            (InvalidInput, LaunchRequest(pipeline_uuid="etl", variables={"x": "\ud800"})),
            (InvalidInput, LaunchRequest(pipeline_uuid="etl", variables={"x": float("nan")})),
            (InvalidInput, LaunchRequest(pipeline_uuid="etl", variables={"x": 2**63})),
            (InvalidInput, LaunchRequest(pipeline_uuid="etl", variables={"x": "y" * 70_000})),
        ):
            with pytest.raises(error):
                await engine.launch(request)
        with pytest.raises(RunNotFound):
            await engine.cancel(99)
        assert await engine.db.read(runs.page, limit=1) == []


async def test_an_engine_fault_in_one_run_hurts_no_other(world: World) -> None:
    world.pipeline("etl", {"a": []})
    world.pipeline("good", {"g": []})

    async def breaks(call: BlockCall) -> BlockResult:
        raise RuntimeError("a fault of the executor")

    world.executor.plays["a"] = breaks
    async with world.serving() as engine:
        bad, good = await asyncio.gather(world.run(engine, "etl"), world.run(engine, "good"))
        assert (bad[0].status, bad[0].status_reason) == (RunStatus.FAILED, "internal_error")
        assert good[0].status is RunStatus.COMPLETED


async def test_many_runs_at_once_all_complete(world: World) -> None:
    world.pipeline("etl", {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]})
    async with world.serving(run_slots=8) as engine:
        launched = await asyncio.gather(
            *(engine.launch(LaunchRequest(pipeline_uuid="etl")) for _ in range(40))
        )
        assert all(await asyncio.gather(*(engine.wait(run.id, 20) for run in launched)))
        assert {r.status for r in await engine.db.read(runs.page, limit=50)} == {RunStatus.COMPLETED}
        assert world.executor.at_once <= 4
