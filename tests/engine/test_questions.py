"""What the service answers to blocks that ask it something: once, and never with the run's end."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from app.executors.base import Ask, BlockCall, BlockResult
from app.models.states import Cause, Outcome, RunStatus
from app.scheduler.launch import LaunchRequest
from app.store import runs
from tests.engine.conftest import World, done

SENSOR = {"type": "sensor", "upstream_blocks": [], "configuration": {"interval": 0.01}}


async def ask(world: World, name: str, /, **payload: Any) -> Mapping[str, Any]:
    """Put a question from inside a play, as its block would."""
    mine = asyncio.current_task()
    (slot,) = [slot for slot in world.executor.slots if slot._task is mine]
    answered: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
    slot.on_ask(Ask(name, payload, answered.set_result))
    return await answered


def checks(**given: Any) -> dict[str, Any]:
    return {
        "pipeline_uuid": "q",
        "execution_date": "2026-01-01T00:00:00",
        "block_uuid": None,
        "hours": 24,
        **given,
    }


@pytest.mark.parametrize(
    ("name", "payload", "argument"),
    [
        ("check_status", checks(hours="a day"), "hours"),
        ("check_status", checks(hours=1e9), "hours"),
        ("check_status", checks(hours=float("nan")), "hours"),
        ("check_status", checks(execution_date="soon"), "execution_date"),
        ("check_status", checks(block_uuid=["x"]), "['x']"),
        ("trigger_pipeline", {"pipeline_uuid": "q", "variables": [1], "wait": False}, "variables"),
        ("wait_for_run", {"run_id": "the last", "seconds": 1}, "run_id"),
        ("wait_for_run", {"run_id": 2**70, "seconds": 1}, "run_id"),
        ("get_secret_value", {"name": "a\0b"}, "name"),
        ("trigger_pipeline", {"pipeline_uuid": "q", "schedule_name": "a\0b"}, "schedule_name"),
        ("trigger_pipeline", {"pipeline_uuid": "\ud800"}, "pipeline_uuid"),
        ("trigger_pipeline", {"pipeline_uuid": "q", "variables": {"a": "\ud800"}}, "variables/a"),
        ("wait_for_run", {"run_id": 1, "seconds": "some"}, "seconds"),
    ],
)
async def test_a_bad_argument_is_the_block_s_error(
    world: World, name: str, payload: dict[str, Any], argument: str
) -> None:
    world.pipeline("p", {"a": []})
    world.pipeline("q", {"x": []})
    replies = []

    async def asks(call: BlockCall) -> BlockResult:
        replies.append(await ask(world, name, **payload))
        return done(1)

    world.executor.plays["a"] = asks
    async with world.serving() as engine:
        run, _ = await world.run(engine, "p")
    assert run.status is RunStatus.COMPLETED
    (reply,) = replies
    assert argument in reply["error"]["message"]
    assert reply["error"]["type"] in ("InvalidInput", "UnknownBlock")


async def test_a_question_to_a_trigger_with_variables_starts_one_run(world: World) -> None:
    world.pipeline("p", {"a": []})
    world.pipeline("q", {"x": []})
    world.triggers("q", {"name": "named", "schedule_type": "api", "variables": {"k": 1, "l": 1}})

    async def asks(call: BlockCall) -> BlockResult:
        question = {"pipeline_uuid": "q", "variables": {"l": 2}, "schedule_name": "named"}
        return done((await ask(world, "trigger_pipeline", **question))["value"]["id"])

    world.executor.plays["a"] = asks
    async with world.serving(scheduling=True) as engine:
        _, blocks = await world.run(engine, "p")
        (child,) = await engine.db.read(runs.page, limit=9, cause=[Cause.PIPELINE])
        assert await engine.wait(child.id, 20)
    assert (child.id, child.variables) == (blocks["a"].outputs[0]["value"], {"k": 1, "l": 2})


async def test_each_poke_of_a_sensor_starts_a_run_of_its_own(world: World) -> None:
    world.pipeline("p", {"s": SENSOR})
    world.pipeline("q", {"x": []})
    children: list[int] = []

    async def poke(call: BlockCall) -> BlockResult:
        reply = await ask(world, "trigger_pipeline", pipeline_uuid="q", variables={})
        children.append(reply["value"]["id"])
        return BlockResult(Outcome.COMPLETED, value_false=len(children) < 3)

    world.executor.plays["s"] = poke
    async with world.serving() as engine:
        run, _ = await world.run(engine, "p")
    assert run.status is RunStatus.COMPLETED
    assert len(children) == len(set(children)) == 3


@pytest.mark.parametrize("ended_by", ["node", "worker"])
@pytest.mark.parametrize("poke", [1, 2])
async def test_a_poke_that_is_begun_anew_finds_the_run_that_it_started(
    world: World, poke: int, ended_by: str
) -> None:
    """Ended twice in the midst of its first or second poke, and then asked once more in the next one."""
    world.pipeline("p", {"s": SENSOR})
    world.pipeline("q", {"x": []})
    children: list[int] = []
    hangs = asyncio.Event()

    async def play(call: BlockCall) -> BlockResult:
        reply = await ask(world, "trigger_pipeline", pipeline_uuid="q", variables={})
        children.append(reply["value"]["id"])
        if poke <= len(children) < poke + 2:
            if ended_by == "worker":
                return BlockResult(Outcome.LOST)
            hangs.set()
            await asyncio.Event().wait()
        return BlockResult(Outcome.COMPLETED, value_false=len(children) < poke + 3)

    world.executor.plays["s"] = play
    async with world.serving() as engine:
        launched = await engine.launch(LaunchRequest(pipeline_uuid="p"))
        if ended_by == "node":
            await hangs.wait()
        else:
            assert await engine.wait(launched.id, 20)
    if ended_by == "node":
        hangs.clear()
        async with world.serving() as engine:
            await hangs.wait()
    async with world.serving() as engine:
        assert await engine.wait(launched.id, 20)
        run, _ = await world.look(engine, launched.id)
    assert run.status is RunStatus.COMPLETED
    first = children[: poke - 1]
    again, after = set(children[poke - 1 : poke + 2]), children[poke + 2 :]
    assert len(again) == 1 and len(after) == 1
    assert len({*first, *again, *after}) == poke + 1
