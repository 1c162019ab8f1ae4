"""Limits at work: who waits, who is cancelled, who is replaced, and what is said about it."""

import asyncio
from typing import Any

import pytest

from app.errors import LimitNotFound, ManagedByFile, ScheduleNotFound
from app.executors.base import BlockCall, BlockResult
from app.models.rows import RunRow, ScheduleRow
from app.models.states import RunStatus, ScheduleStatus, ScheduleType
from app.scheduler import limiting
from app.scheduler.engine import Engine
from app.scheduler.launch import LaunchRequest
from app.scheduler.triggers import TriggerDraft
from app.scheduler.waiting import explain_waiting
from app.store import limits, runs
from tests.engine.conftest import World, done, until


class Gate:
    """Blocks that run until they are let go, or killed."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.running: list[int] = []

    async def __call__(self, call: BlockCall) -> BlockResult:
        self.running.append(call.run_id)
        await self.open.wait()
        return done()


async def trigger(engine: Engine, **settings: Any) -> ScheduleRow:
    draft = TriggerDraft(
        pipeline_uuid="etl",
        name="t",
        schedule_type=ScheduleType.API,
        status=ScheduleStatus.ACTIVE,
        settings=settings,
    )
    return (await engine.triggers.create(draft))[0]


async def look(engine: Engine, run: RunRow) -> RunRow:
    found = await engine.db.read(runs.get, run.id)
    assert found is not None
    return found


async def test_the_newest_run_replaces_the_older_ones_and_starts_when_they_are_dead(world: World) -> None:
    world.pipeline("etl", {"a": []})
    dying = asyncio.Event()
    gate = Gate()

    async def dies_slowly(call: BlockCall) -> BlockResult:
        if gate.running:
            return await gate(call)
        gate.running.append(call.run_id)
        try:
            await gate.open.wait()
        finally:
            await dying.wait()
        return done()

    world.executor.plays["a"] = dies_slowly
    async with world.serving() as engine:
        row = await trigger(engine, pipeline_run_limit=1, on_pipeline_run_limit_reached="replace")
        first = await engine.triggers.launch(row.id)
        await until(lambda: gate.running == [first.id])
        second = await engine.triggers.launch(row.id)
        await until(lambda: len(world.executor.kills) == 1)
        third = await engine.triggers.launch(row.id)
        ended = await look(engine, second)
        assert (ended.status, ended.status_reason) == (RunStatus.CANCELLED, "replaced")
        assert ended.status_detail is not None and ended.status_detail["replaced_by"] == third.id
        assert (await look(engine, first)).status is RunStatus.RUNNING, "it is not dead yet"
        assert (await look(engine, third)).status is RunStatus.INITIAL
        dying.set()
        assert await engine.wait(first.id, 10)
        ended = await look(engine, first)
        assert (ended.status, ended.status_reason) == (RunStatus.CANCELLED, "replaced")
        await until(lambda: gate.running[-1] == third.id)
        gate.open.set()
        assert await engine.wait(third.id, 10)
        assert (await look(engine, third)).status is RunStatus.COMPLETED


async def test_a_raised_limit_acts_at_once_and_a_lowered_one_ends_nothing(world: World) -> None:
    world.pipeline("etl", {"a": []})
    world.executor.plays["a"] = gate = Gate()
    async with world.serving() as engine:
        await limiting.put(engine, "global", 0)
        waiting = [await engine.launch(LaunchRequest(pipeline_uuid="etl")) for _ in range(3)]
        found = await look(engine, waiting[0])
        assert found.status_detail == {
            "waits_for": [{"scope": "global", "cap": 0, "running": 0, "holders": []}]
        }
        reasons = await engine.db.read(explain_waiting, waiting[2].id)
        assert [reason.code for reason in reasons] == ["limit_zero", "queue"]
        assert reasons[1].detail["position"] == 3
        await limiting.put(engine, "global", 2)
        await until(lambda: len(gate.running) == 2)
        row = await limiting.put(engine, "global", 1)
        assert row is not None and (row.running, row.waiting) == (2, 1)
        assert sorted(row.holders) == sorted(gate.running)
        reasons = await engine.db.read(explain_waiting, waiting[2].id)
        assert [reason.code for reason in reasons] == ["limit_reached"]
        assert (await look(engine, waiting[0])).status_detail is None, "it runs"
        gate.open.set()
        for run in waiting:
            assert await engine.wait(run.id, 10)
        await limiting.put(engine, "global", None)
        changes = await engine.db.read(limits.history, "global", limit=9)
        assert [change.cap for change in changes] == [None, 1, 2, 0]


async def test_runs_of_one_key_share_its_limit(world: World) -> None:
    world.pipeline("etl", {"a": []})
    world.executor.plays["a"] = gate = Gate()
    async with world.serving() as engine:
        await limiting.put(engine, "key:customer-7", 1)
        one, two = [
            await engine.launch(LaunchRequest(pipeline_uuid="etl", concurrency_key="customer-7"))
            for _ in range(2)
        ]
        other = await engine.launch(LaunchRequest(pipeline_uuid="etl", concurrency_key="customer-8"))
        await until(lambda: set(gate.running) == {one.id, other.id})
        assert (await look(engine, two)).status is RunStatus.INITIAL
        gate.open.set()
        for run in (one, two, other):
            assert await engine.wait(run.id, 10)
        again = await engine.retry(two.id, source="start")
        assert again.concurrency_key == "customer-7"
        assert await engine.wait(again.id, 10)


@pytest.mark.parametrize(
    ("config", "fate"),
    [
        ({"pipeline_run_limit": 1}, (RunStatus.INITIAL, None)),
        (
            {"pipeline_run_limit": 1, "on_pipeline_run_limit_reached": "skip"},
            (RunStatus.CANCELLED, "pipeline_run_limit"),
        ),
        (
            {"pipeline_run_limit_all_triggers": 1, "on_pipeline_run_limit_reached": "skip"},
            (RunStatus.CANCELLED, "pipeline_run_limit_all_triggers"),
        ),
    ],
)
async def test_a_pipeline_limits_its_triggers_and_says_what_becomes_of_the_surplus(
    world: World, config: dict[str, Any], fate: tuple[RunStatus, str | None]
) -> None:
    world.pipeline("etl", {"a": []}, concurrency_config=config)
    world.triggers("etl", {"name": "t", "schedule_type": "api"})
    world.executor.plays["a"] = gate = Gate()
    async with world.serving(scheduling=True) as engine:
        row = await engine.triggers.named("etl", "t")
        first = await engine.triggers.launch(row.id)
        second = await engine.triggers.launch(row.id)
        found = await look(engine, second)
        assert (found.status, found.status_reason) == fate
        assert found.status_detail is not None and str(first.id) in str(found.status_detail)
        scope = f"schedule:{row.id}" if "pipeline_run_limit" in config else "pipeline:etl"
        limit = await engine.db.read(limits.get, scope)
        assert limit is not None and (limit.cap, limit.source) == (1, "file")
        with pytest.raises(ManagedByFile):
            await limiting.put(engine, scope, 5)
        gate.open.set()
        for run in (first, second):
            assert await engine.wait(run.id, 10)


async def test_an_operators_limit_of_a_pipeline_outlives_a_look_at_the_files(world: World) -> None:
    world.pipeline("etl", {"a": []})
    (world.folder / "metadata.yaml").write_text(
        "name: project\nconcurrency_config:\n  pipeline_run_limit_all_pipelines: 7\n"
    )
    async with world.serving(scheduling=True) as engine:
        await limiting.put(engine, "pipeline:etl", 3)
        await engine.passes.sync(force=True)
        rows = await engine.db.read(limits.page, limit=9)
        assert [(r.scope, r.cap, r.source) for r in rows] == [
            ("global", 7, "setting"),
            ("pipeline:etl", 3, "api"),
        ]
        with pytest.raises(ManagedByFile):
            await limiting.put(engine, "global", 5)
        await limiting.put(engine, "pipeline:etl", None)
        with pytest.raises(LimitNotFound):
            await limiting.put(engine, "pipeline:etl", None)
        with pytest.raises(ScheduleNotFound):
            await limiting.put(engine, "schedule:99", 1)


async def test_the_limit_of_a_trigger_is_its_setting(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        row = await trigger(engine)
        await limiting.put(engine, f"schedule:{row.id}", 2)
        changed = await engine.triggers.named("etl", "t")
        assert changed.settings["pipeline_run_limit"] == 2
        assert await engine.db.read(limits.limits, "schedule:") == {f"schedule:{row.id}": 2}
        await limiting.put(engine, f"schedule:{row.id}", None)
        assert await engine.db.read(limits.limits, "schedule:") == {}


async def test_the_block_limit_of_a_run_holds_over_a_restart(world: World) -> None:
    blocks = {name: [] for name in "abc"}
    world.pipeline("etl", blocks, concurrency_config={"block_run_limit": 1})
    gate = Gate()
    world.executor.plays.update(dict.fromkeys(blocks, gate))
    async with world.serving() as engine:
        run = await engine.launch(LaunchRequest(pipeline_uuid="etl"))
        await until(lambda: len(gate.running) == 1)
    gate.open.set()
    async with world.serving() as engine:
        assert await engine.wait(run.id, 10)
        assert (await look(engine, run)).status is RunStatus.COMPLETED
    assert world.executor.at_once == 1
