"""Blocks that run once an item, with real workers where items are on disk: what runs, in what order, what is left."""

import asyncio
from typing import Any

import pytest

from app import clock
from app.executors.base import BlockCall, BlockResult
from app.models.rows import BlockRow, RunRow
from app.models.states import BlockStatus, Outcome, RunStatus
from app.scheduler.engine import Engine
from app.scheduler.launch import LaunchRequest
from app.store import pruning
from tests.engine.conftest import World, done, failed, statuses, until

B = BlockStatus


def items(*values: Any, meta: list[dict[str, Any]] | None = None) -> BlockResult:
    """What a dynamic block leaves when its items are small JSON."""
    ref: dict[str, Any] = {"kind": "items", "count": len(values), "values": list(values), "meta": meta or []}
    named = {str(i): m["block_uuid"] for i, m in enumerate(meta or []) if "block_uuid" in m}
    after = {str(i): m["upstream_blocks"] for i, m in enumerate(meta or []) if "upstream_blocks" in m}
    return BlockResult(Outcome.COMPLETED, outputs=[{**ref, "names": named, "after": after}])


async def doubles(call: BlockCall) -> BlockResult:
    (_uuid, refs) = call.inputs[0]
    return done(refs[0]["value"] * 2)


async def listed(call: BlockCall) -> BlockResult:
    (_uuid, refs) = call.inputs[0]
    assert refs[0]["kind"] == "list"
    return done([part[0]["value"] for part in refs[0]["refs"]])


def dynamic(*upstream: str, **more: Any) -> dict[str, Any]:
    return {"upstream_blocks": list(upstream), "configuration": {"dynamic": True, **more}}


def reduced(*upstream: str) -> dict[str, Any]:
    return {"upstream_blocks": list(upstream), "configuration": {"reduce_output": True}}


def says(result: BlockResult) -> Any:
    async def play(call: BlockCall) -> BlockResult:
        return result

    return play


async def test_one_child_an_item_then_all_of_them_once(world: World) -> None:
    world.pipeline("p", {"src": dynamic(), "each": reduced("src"), "all": ["each"]})
    world.executor.plays |= {"src": says(items(1, 2, 3)), "each": doubles, "all": listed}
    async with world.serving() as engine:
        run, blocks = await world.run(engine, "p")
    assert run.status is RunStatus.COMPLETED
    assert blocks["all"].outputs[0]["value"] == [2, 4, 6]
    assert blocks["each"].children == 3 and blocks["each"].attempt == 0
    assert [blocks[f"each:{i}"].item_index for i in range(3)] == [0, 1, 2]
    assert {b.status for b in blocks.values()} == {B.COMPLETED}


async def test_children_of_children_go_on_each_by_itself(world: World) -> None:
    world.pipeline("p", {"src": dynamic(), "one": ["src"], "two": reduced("one"), "all": ["two"]})
    world.executor.plays |= {"src": says(items(1, 2)), "two": doubles, "all": listed}
    slow = asyncio.Event()

    async def one(call: BlockCall) -> BlockResult:
        number = call.inputs[0][1][0]["value"]
        if number == 1:
            await slow.wait()
        return done(number)

    world.executor.plays["one"] = one
    async with world.serving() as engine:
        launched = await engine.launch(LaunchRequest(pipeline_uuid="p"))
        await until(lambda: "two" in world.executor.ran())
        slow.set()
        assert await engine.wait(launched.id, 20)
        run, blocks = await world.look(engine, launched.id)
    assert run.status is RunStatus.COMPLETED
    assert blocks["all"].outputs[0]["value"] == [2, 4]


async def test_no_items_are_no_children_and_an_empty_list(world: World) -> None:
    world.pipeline("p", {"src": dynamic(), "each": ["src"], "more": reduced("each"), "all": ["more"]})
    world.executor.plays |= {"src": says(items()), "all": listed}
    async with world.serving() as engine:
        run, blocks = await world.run(engine, "p")
    assert run.status is RunStatus.COMPLETED
    assert blocks["all"].outputs[0]["value"] == [] and len(blocks) == 4
    assert world.executor.ran() == ["src", "all"]


async def test_two_dynamic_upstreams_are_multiplied_and_one_seen_twice_is_not(world: World) -> None:
    world.pipeline(
        "p",
        {
            "a": dynamic(),
            "b": dynamic(),
            "pair": reduced("a", "b"),
            "left": ["a"],
            "right": ["a"],
            "zip": reduced("left", "right"),
            "all": ["pair"],
            "zipped": ["zip"],
        },
    )

    async def both(call: BlockCall) -> BlockResult:
        return done([refs[0]["value"] for _uuid, refs in call.inputs])

    async def same(call: BlockCall) -> BlockResult:
        return done(call.inputs[0][1][0]["value"])

    world.executor.plays |= {
        "a": says(items(1, 2)),
        "b": says(items("x", "y", "z")),
        "pair": both,
        "zip": both,
    }
    world.executor.plays |= {"left": same, "right": same, "all": listed, "zipped": listed}
    async with world.serving() as engine:
        _run, blocks = await world.run(engine, "p")
    assert blocks["all"].outputs[0]["value"] == [[n, c] for n in (1, 2) for c in "xyz"]
    assert blocks["zipped"].outputs[0]["value"] == [[1, 1], [2, 2]]


async def test_what_is_told_of_items_names_and_orders_the_children(world: World) -> None:
    world.pipeline("p", {"src": dynamic(), "each": ["src"]})
    meta = [{"block_uuid": "late", "upstream_blocks": ["early"]}, {"block_uuid": "early"}]
    world.executor.plays["src"] = says(items("l", "e", meta=meta))
    async with world.serving() as engine:
        run, blocks = await world.run(engine, "p")
    assert run.status is RunStatus.COMPLETED
    assert [c.inputs[0][1][0]["value"] for c in world.executor.calls if c.block.uuid == "each"] == ["e", "l"]
    assert {"each:late", "each:early"} <= blocks.keys()


async def test_items_that_wait_for_each_other_fail_their_block(world: World) -> None:
    world.pipeline("p", {"src": dynamic(), "each": ["src"], "end": ["each"]})
    meta = [{"block_uuid": "a", "upstream_blocks": ["b"]}, {"block_uuid": "b", "upstream_blocks": ["a"]}]
    world.executor.plays["src"] = says(items(1, 2, meta=meta))
    async with world.serving() as engine:
        run, blocks = await world.run(engine, "p")
    assert run.status is RunStatus.FAILED
    assert "form a cycle" in str(blocks["each"].status_reason)


async def test_a_child_that_fails_stops_the_run(world: World) -> None:
    world.pipeline("p", {"src": dynamic(), "each": reduced("src"), "all": ["each"]})

    async def one_fails(call: BlockCall) -> BlockResult:
        if call.item != 2:
            await asyncio.Event().wait()
        await until(lambda: world.executor.busy == 4)
        return failed()

    world.executor.plays |= {"src": says(items(*range(9))), "each": one_fails}
    async with world.serving() as engine:
        run, blocks = await world.run(engine, "p")
    assert run.status is RunStatus.FAILED and "each:2" in str(run.status_reason)
    assert world.executor.kills == ["another block failed"] * 3
    for n in range(9):
        ended = Outcome.FAILED if n == 2 else Outcome.CANCELLED
        assert [a.outcome for a in blocks[f"each:{n}"].attempts] == ([ended] if n < 4 else [])
    left = {"src": B.COMPLETED, "each": B.FAILED, "each:2": B.FAILED}
    assert statuses(blocks) == dict.fromkeys(blocks, B.CANCELLED) | left


async def test_where_blocks_may_fail_the_others_are_still_reduced(world: World) -> None:
    world.pipeline("p", {"src": dynamic(), "each": reduced("src"), "all": ["each"]})
    world.triggers("p", {"name": "t", "schedule_type": "api", "settings": {"allow_blocks_to_fail": True}})

    async def fails_once(call: BlockCall) -> BlockResult:
        number = call.inputs[0][1][0]["value"]
        return failed() if number == 1 else done(number)

    world.executor.plays |= {"src": says(items(0, 1, 2)), "each": fails_once, "all": listed}
    async with world.serving(scheduling=True) as engine:
        trigger = await engine.triggers.named("p", "t")
        launched = await engine.launch(LaunchRequest(pipeline_uuid="p"), schedule=trigger)
        assert await engine.wait(launched.id, 20)
        run, blocks = await world.look(engine, launched.id)
    assert run.status is RunStatus.FAILED and "each:1" in str(run.status_reason)
    assert blocks["all"].outputs[0]["value"] == [0, 2]
    assert statuses(blocks)["each:1"] is B.FAILED


async def test_a_dynamic_block_below_a_dynamic_block_hands_out_everything(world: World) -> None:
    world.pipeline("p", {"src": dynamic(), "mid": dynamic("src"), "leaf": reduced("mid"), "all": ["leaf"]})

    async def hands_out(call: BlockCall) -> BlockResult:
        number = call.inputs[0][1][0]["value"]
        return items(*[number * 10 + i for i in range(number)])

    async def same(call: BlockCall) -> BlockResult:
        return done(call.inputs[0][1][0]["value"])

    world.executor.plays |= {"src": says(items(1, 0, 3)), "mid": hands_out, "leaf": same, "all": listed}
    async with world.serving() as engine:
        run, blocks = await world.run(engine, "p")
    assert run.status is RunStatus.COMPLETED
    assert blocks["all"].outputs[0]["value"] == [10, 30, 31, 32]


async def test_more_children_than_allowed(world: World) -> None:
    few = {"dynamic": {"parent": True}}
    for behaviour in ("fail", "limit"):
        world.pipeline(
            behaviour,
            {"src": {"upstream_blocks": [], "configuration": few}, "each": ["src"]},
            dynamic_blocks={"max_child_block_runs": 2, "on_max_child_block_runs_exceeded": behaviour},
        )
    world.executor.plays["src"] = says(items(1, 2, 3))
    async with world.serving() as engine:
        for behaviour, expected in (("fail", RunStatus.FAILED), ("limit", RunStatus.COMPLETED)):
            run, blocks = await world.run(engine, behaviour)
            assert run.status is expected, run.status_reason
            assert blocks["each"].children == (0 if behaviour == "fail" else 2)
            if behaviour == "fail":
                assert "max_child_block_runs" in str(blocks["each"].status_reason)


async def test_after_a_crash_no_child_is_done_twice(world: World) -> None:
    world.pipeline("p", {"src": dynamic(), "each": reduced("src"), "all": ["each"]})
    hold = asyncio.Event()
    ended: list[int] = []

    async def slow(call: BlockCall) -> BlockResult:
        number = call.inputs[0][1][0]["value"]
        if number >= 3:
            await hold.wait()
        ended.append(number)
        return done(number)

    world.executor.plays |= {"src": says(items(*range(8))), "each": slow, "all": listed}
    async with world.serving() as engine:
        launched = await engine.launch(LaunchRequest(pipeline_uuid="p"))
        await until(lambda: len(ended) == 3)
        await until(lambda: world.executor.busy == 4)
    hold.set()
    async with world.serving() as engine:
        assert await engine.wait(launched.id, 20)
        run, blocks = await world.look(engine, launched.id)
    assert run.status is RunStatus.COMPLETED
    assert sorted(ended) == list(range(8))
    assert blocks["all"].outputs[0]["value"] == list(range(8))


async def test_cancel_ends_every_child(world: World) -> None:
    world.pipeline("p", {"src": dynamic(), "each": ["src"], "all": ["each"]})

    async def hangs(call: BlockCall) -> BlockResult:
        await asyncio.Event().wait()
        raise AssertionError

    world.executor.plays |= {"src": says(items(*range(20))), "each": hangs}
    async with world.serving() as engine:
        launched = await engine.launch(LaunchRequest(pipeline_uuid="p"))
        await until(lambda: world.executor.busy == 4)
        await engine.cancel(launched.id)
        assert await engine.wait(launched.id, 20)
        run, blocks = await world.look(engine, launched.id)
    assert run.status is RunStatus.CANCELLED
    assert {b.status for uuid, b in blocks.items() if uuid != "src"} == {B.CANCELLED}


@pytest.mark.parametrize("kind", ["condition", "callback"])
async def test_hooks_are_for_each_child(world: World, kind: str) -> None:
    (world.folder / f"{kind}s").mkdir()
    folder = {"condition": "conditionals", "callback": "callbacks"}[kind]
    (world.folder / folder).mkdir(exist_ok=True)
    (world.folder / folder / "h.py").write_text("# played by the test\n")
    hook = {"uuid": "h", "type": folder[:-1], "upstream_blocks": ["each"]}
    world.pipeline("p", {"src": dynamic(), "each": reduced("src"), "all": ["each"]}, **{folder: [hook]})

    async def play(call: BlockCall) -> BlockResult:
        if call.hook is None:
            return done(call.inputs[0][1][0]["value"])
        even = kind == "callback" or call.inputs[0][1][0]["value"] % 2 == 0
        return BlockResult(Outcome.COMPLETED, value_false=not even)

    world.executor.plays |= {"src": says(items(0, 1, 2, 3)), "each": play, "all": listed}
    async with world.serving() as engine:
        run, blocks = await world.run(engine, "p")
    assert run.status is RunStatus.COMPLETED
    assert blocks["all"].outputs[0]["value"] == ([0, 2] if kind == "condition" else [0, 1, 2, 3])
    hooks = [c for c in world.executor.calls if c.hook]
    assert len(hooks) == 4


async def retried(world: World, engine: Engine, run_id: int) -> tuple[RunRow, dict[str, BlockRow]]:
    """Retry a run to its end, with nothing but the retry's calls on record; the new run and its blocks."""
    world.executor.calls.clear()
    again = await engine.retry(run_id)
    assert await engine.wait(again.id, 20)
    return await world.look(engine, again.id)


async def test_a_retry_runs_only_the_children_that_failed(world: World) -> None:
    world.pipeline("p", {"src": dynamic(), "one": ["src"], "two": reduced("one"), "all": ["two"]})
    broken = {2}

    async def fails(call: BlockCall) -> BlockResult:
        number = call.inputs[0][1][0]["value"]
        if number in broken:
            await until(lambda: sum(c.block.uuid == "two" for c in world.executor.calls) == 2)
            return failed()
        return done(number)

    world.executor.plays |= {"src": says(items(0, 1, 2)), "one": fails, "two": doubles, "all": listed}
    async with world.serving() as engine:
        first, _blocks = await world.run(engine, "p")
        assert first.status is RunStatus.FAILED
        broken.clear()
        run, blocks = await retried(world, engine, first.id)
    assert run.status is RunStatus.COMPLETED
    assert blocks["all"].outputs[0]["value"] == [0, 2, 4]
    ran = [(c.block.uuid, c.item) for c in world.executor.calls]
    assert ran[0] == ("one", 2) and ("one", 0) not in ran and ran[-1] == ("all", None)


async def test_a_retry_hands_each_child_what_its_own_item_left(world: World) -> None:
    """A condition kept one child out: those after it do not move up, and nothing runs for it now either."""
    (world.folder / "conditionals").mkdir()
    (world.folder / "conditionals" / "odd.py").write_text("# played by the test\n")
    hook = {"uuid": "odd", "type": "conditional", "upstream_blocks": ["one"]}
    world.pipeline("p", {"src": dynamic(), "one": ["src"], "two": ["one"]}, conditionals=[hook])
    broken = {2}

    async def one(call: BlockCall) -> BlockResult:
        item = call.inputs[0][1][0]["value"]
        if call.hook is not None:
            return BlockResult(Outcome.COMPLETED, value_false=item == "a")
        return done(f"one-{item}")

    async def two(call: BlockCall) -> BlockResult:
        if call.item in broken:
            await until(lambda: sum(c.block.uuid == "two" for c in world.executor.calls) == 2)
            return failed()
        return done([ref["value"] for ref in call.inputs[0][1]])

    world.executor.plays |= {"src": says(items("a", "b", "c")), "one": one, "two": two}
    async with world.serving() as engine:
        first, _blocks = await world.run(engine, "p")
        assert first.status is RunStatus.FAILED
        broken.clear()
        run, blocks = await retried(world, engine, first.id)
    assert run.status is RunStatus.COMPLETED
    assert [(c.block.uuid, c.item) for c in world.executor.calls] == [("two", 2)]
    assert blocks["two:2"].outputs[0]["value"] == ["one-c"]
    assert {blocks[f"two:{n}"].status for n in (1, 2)} == {B.COMPLETED}
    assert blocks["two:0"].status is B.CONDITION_FAILED


async def test_a_retry_runs_a_child_again_whose_failure_was_allowed(world: World) -> None:
    world.pipeline("p", {"src": dynamic(), "each": reduced("src"), "all": ["each"]})
    world.triggers("p", {"name": "t", "schedule_type": "api", "settings": {"allow_blocks_to_fail": True}})
    broken = {1}

    async def each(call: BlockCall) -> BlockResult:
        return failed() if call.item in broken else done(call.item)

    world.executor.plays |= {"src": says(items(0, 1, 2)), "each": each, "all": listed}
    async with world.serving(scheduling=True) as engine:
        trigger = await engine.triggers.named("p", "t")
        first = await engine.launch(LaunchRequest(pipeline_uuid="p"), schedule=trigger)
        assert await engine.wait(first.id, 20)
        broken.clear()
        run, blocks = await retried(world, engine, first.id)
    assert run.status is RunStatus.COMPLETED
    assert [(c.block.uuid, c.item) for c in world.executor.calls] == [("each", 1), ("all", None)]
    assert blocks["all"].outputs[0]["value"] == [0, 1, 2]


async def test_a_retry_runs_a_child_again_whose_file_is_no_longer_kept(world: World) -> None:
    world.pipeline("p", {"src": dynamic(), "each": ["src"]})
    broken = {1}

    async def each(call: BlockCall) -> BlockResult:
        if call.item in broken:
            await until(lambda: len(world.executor.calls) == 4)
            return failed()
        if call.item == 2:
            return done("small")
        file = {"kind": "pickle", "path": f"{call.artifact_dir}/output_0.pkl", "size": 1}
        return BlockResult(Outcome.COMPLETED, outputs=[file])

    world.executor.plays |= {"src": says(items(0, 1, 2)), "each": each}
    async with world.serving() as engine:
        first, _blocks = await world.run(engine, "p")
        assert await engine.db.write(pruning.forget_outputs, [first.id], now=clock.now()) == [first.id]
        broken.clear()
        run, blocks = await retried(world, engine, first.id)
    assert run.status is RunStatus.COMPLETED
    assert sorted(c.item or 0 for c in world.executor.calls) == [0, 1]
    assert blocks["each:2"].carried_from is not None


@pytest.mark.parametrize("stopped_by", ["failure", "cancel"])
async def test_children_that_are_sensors_wait_for_nothing_in_a_run_that_stops(
    world: World, stopped_by: str
) -> None:
    watch = {"type": "sensor", "upstream_blocks": ["src"], "configuration": {"interval": 600}}
    world.pipeline("p", {"src": dynamic(), "watch": watch, "other": ["src"], "end": ["watch"]})
    asked = asyncio.Event()

    async def not_yet(call: BlockCall) -> BlockResult:
        if call.item == 2:
            asked.set()
        return BlockResult(Outcome.COMPLETED, value_false=True)

    async def fails(call: BlockCall) -> BlockResult:
        await asked.wait()
        return failed() if stopped_by == "failure" else done()

    world.executor.plays |= {"src": says(items(0, 1, 2)), "watch": not_yet, "other": fails}
    async with world.serving() as engine:
        launched = await engine.launch(LaunchRequest(pipeline_uuid="p"))
        await asked.wait()
        if stopped_by == "cancel":
            await engine.cancel(launched.id)
        assert await engine.wait(launched.id, 20)
        run, blocks = await world.look(engine, launched.id)
    ended = RunStatus.FAILED if stopped_by == "failure" else RunStatus.CANCELLED
    assert (run.status, run.status_reason) != (RunStatus.FAILED, "internal_error")
    assert run.status is ended
    assert {blocks[f"watch:{n}"].status for n in range(3)} == {B.CANCELLED}
    assert (blocks["watch"].status, blocks["end"].status) == (B.CANCELLED, B.CANCELLED)


async def test_no_rule_runs_a_block_whose_items_will_never_be_known(world: World) -> None:
    ruled = {"upstream_blocks": ["src"], "trigger_rule": "one_failed"}
    after = {"upstream_blocks": ["each"], "trigger_rule": "all_done"}
    world.pipeline("p", {"src": dynamic(), "each": ruled, "after": after})
    world.executor.plays |= {"src": says(failed())}
    async with world.serving() as engine:
        run, blocks = await world.run(engine, "p")
    assert (run.status, run.status_reason) == (RunStatus.FAILED, "block_failed: src")
    assert statuses(blocks) == {"src": B.FAILED, "each": B.UPSTREAM_FAILED, "after": B.UPSTREAM_FAILED}
    assert "'src'" in str(blocks["each"].status_reason)


async def test_a_block_with_a_rule_runs_once_an_item_in_a_run_that_fails(world: World) -> None:
    ruled = {"upstream_blocks": ["src"], "trigger_rule": "all_done"}
    late = {**dynamic("bad"), "trigger_rule": "all_done"}
    world.pipeline("p", {"bad": [], "src": late, "each": ruled})
    world.executor.plays |= {"bad": says(failed()), "src": says(items(0, 1)), "each": doubles}
    async with world.serving() as engine:
        run, blocks = await world.run(engine, "p")
    assert (run.status, run.status_reason) == (RunStatus.FAILED, "block_failed: bad")
    assert {name: block.status for name, block in blocks.items() if name.startswith("each")} == {
        "each": B.COMPLETED,
        "each:0": B.COMPLETED,
        "each:1": B.COMPLETED,
    }
