"""What a node claims: its free slots are counted once, whoever counts them; and no pass goes on for ever."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from app import clock
from app.executors.base import BlockCall, BlockResult
from app.models.states import Outcome
from app.scheduler import applying, passes
from app.scheduler.launch import LaunchRequest
from app.store import nodes, ownership, runs
from app.store.sql import RUN
from tests.engine.conftest import Scripted, World, done, until


async def test_a_takeover_and_an_admission_at_once_fill_each_slot_once(world: World) -> None:
    world.executor = Scripted(9)
    world.pipeline("p", {"a": []})
    opened = asyncio.Event()

    async def waits(call: BlockCall) -> BlockResult:
        await opened.wait()
        return done()

    world.executor.plays["a"] = waits
    async with world.serving(run_slots=2) as engine:
        for _ in range(4):
            await engine.launch(LaunchRequest(pipeline_uuid="p"))
        engine.intake.open = False
        for runner in list(engine.fleet.active.values()):
            runner.leave()
        for slot in world.executor.slots:
            await slot.kill(Outcome.LOST, "its node died")
        await engine._wait_for_runs(10)
        await engine.db.write(nodes.register, replace(engine.member.me, id="dead"))
        give = RUN.update().where(RUN.c.owner == engine.node_id).values(owner="dead")
        await engine.db.write(lambda tx: tx.execute(give))
        await engine.db.write(nodes.fence, ["dead"], now=clock.now())
        engine.intake.open = True

        estate = await engine.db.read(ownership.estate)
        assert (estate.others, engine.fleet.free) == (2, 2)
        await asyncio.gather(engine.passes._recovery.take_over(estate), engine.intake.admit())
        assert len(await engine.db.read(runs.owned, engine.node_id)) == 2
        opened.set()

        async def all_over() -> bool:
            await engine.passes.poll()
            return all(run.completed_at for run in await engine.db.read(runs.page, limit=9))

        await until(all_over, 20)


async def test_a_fault_in_following_the_files_ends_the_pass_and_the_next_one_tries_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.pipeline("p", {"a": []})
    looks = 0

    async def bring(*args: Any) -> int:
        nonlocal looks
        looks += 1
        raise KeyError("p")

    async with world.serving() as engine:
        with monkeypatch.context() as patch:
            patch.setattr(applying, "bring", bring)
            with pytest.raises(KeyError):
                await engine.passes.sync(force=True)
        assert looks == passes.LOOKS
        assert await engine.passes.sync(), "not forgotten"


async def test_a_node_whose_lease_is_over_by_its_own_clock_begins_nothing(world: World) -> None:
    world.pipeline("p", {"a": []})
    called: list[int] = []

    async def plays(call: BlockCall) -> BlockResult:
        called.append(call.attempt)
        return done()

    world.executor.plays["a"] = plays
    async with world.serving() as engine:
        answers = iter([False])  # as after a SIGCONT, where the loop is faster than the thread of the lease
        engine.fleet.tools.hooks.may_act = lambda: next(answers, True)
        run = await engine.launch(LaunchRequest(pipeline_uuid="p"))
        assert await engine.wait(run.id, 10)
        assert called == [2], "the first attempt was lost before it began"
