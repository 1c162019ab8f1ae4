"""What is special about blocks on the service's own loop."""

import asyncio
import sys
import time
from typing import Any

import pytest

from app.executors import inline as inline_module
from app.executors.inline import InlineExecutor
from app.models.states import Outcome
from tests.executors.bench import Bench, values

JSON = {"kind": "json", "value": [1]}


async def test_a_def_block_is_refused(inline: InlineExecutor, bench: Bench) -> None:
    result = await bench.run(inline, "@custom\ndef f():\n    return 1\n")
    assert result.error is not None
    assert result.error.type == "NotInline"
    assert "needs an `async def` function" in result.error.message


@pytest.mark.parametrize("returned", ["(1, (2,))", "{1: 2}", "b'x'", "'x' * 70000", "[[(1,)]]"])
async def test_only_json_comes_out(inline: InlineExecutor, bench: Bench, returned: str) -> None:
    result = await bench.run(inline, f"@custom\nasync def f():\n    return {returned}\n")
    assert result.outcome is Outcome.FAILED
    assert result.error is not None
    assert result.error.type == "OutputNotStorable"
    assert "can only return plain JSON values of up to 64 KiB" in result.error.message


async def test_only_json_goes_in(inline: InlineExecutor, bench: Bench) -> None:
    ref = {"kind": "pickle", "path": "x.pkl"}
    result = await bench.run(inline, "@custom\nasync def f(x):\n    return 1\n", inputs=[("up", [ref])])
    assert result.error is not None
    assert "the output of block 'up' is no JSON value" in result.error.message


async def test_an_input_is_a_copy(inline: InlineExecutor, bench: Bench) -> None:
    ref: dict[str, Any] = {"kind": "json", "value": [1]}
    text = "@custom\nasync def f(x, **kwargs):\n    x.append(2)\n    kwargs['v'].append(3)\n    return {'x': x}\n"
    variables = {"v": [0]}
    result = await bench.run(inline, text, inputs=[("up", [ref])], kwargs=variables)
    assert values(result) == [{"x": [1, 2]}]
    assert (ref["value"], variables) == ([1], {"v": [0]})


@pytest.mark.parametrize(
    ("hold", "limit_s"), [("time.sleep(30)", 1.0), ("spin()", 0.2), ("json.loads(Slow())", 0.2)]
)
async def test_a_block_that_holds_the_loop_is_broken(
    inline: InlineExecutor, bench: Bench, hold: str, limit_s: float
) -> None:
    assert inline.watchdog.limit_s == 1.0
    inline.watchdog.limit_s = limit_s
    text = f"""
        import json, time

        def spin():
            while True:
                pass

        class Slow(str):
            def startswith(self, other):
                spin()

        @custom
        async def f():
            {hold}
    """
    began = time.monotonic()
    result = await bench.run(inline, text)
    assert limit_s * 0.9 < time.monotonic() - began < limit_s + 2
    assert result.outcome is Outcome.FAILED
    assert result.error is not None
    assert result.error.type == "app.executors.watchdog.LoopHeld"
    assert f"held the event loop for {limit_s:g} s" in result.error.message
    assert result.error.file == "customs/block.py"


async def test_code_of_ours_that_holds_the_loop_is_not_hit(inline: InlineExecutor, bench: Bench) -> None:
    text = "import asyncio\n@custom\nasync def f():\n    await asyncio.sleep(0.8)\n    return 1\n"
    inline.watchdog.limit_s = 0.2
    async with asyncio.TaskGroup() as group:
        running = group.create_task(bench.run(inline, text))
        await asyncio.sleep(0.1)
        until = time.monotonic() + 0.6
        while time.monotonic() < until:
            pass
    assert values(running.result()) == [1]


async def test_printing_belongs_to_the_block_that_prints(
    inline: InlineExecutor, bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    text = """
        import asyncio

        async def deeper(name):
            await asyncio.sleep(0)
            print(name)

        @custom
        async def f(**kwargs):
            async with asyncio.timeout(5):
                await asyncio.gather(*(deeper(f"{kwargs['name']}{n}") for n in range(3)))
    """
    heard: dict[str, list[str]] = {"a": [], "b": []}

    async def one(name: str) -> None:
        slot = await inline.acquire()
        call = bench.call(text, kwargs={"name": name})
        await slot.run(call, lambda line: heard[name].append(line.text))
        slot.release()

    before = sys.stdout
    async with asyncio.TaskGroup() as group:
        for name in heard:
            group.create_task(one(name))
        await asyncio.sleep(0)
        print("the service itself")
    assert heard == {name: [f"{name}{n}" for n in range(3)] for name in heard}
    assert capsys.readouterr().out == "the service itself\n"
    assert sys.stdout is before


async def test_a_block_that_swallows_its_cancellation_is_left_behind_and_told(
    inline: InlineExecutor, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inline_module, "STUBBORN_S", 0.3)
    text = """
        import asyncio, pathlib

        @custom
        async def f(**kwargs):
            end = pathlib.Path(kwargs['repo_path'], 'end')
            print('up')
            while not end.exists():
                try:
                    await asyncio.sleep(0.01)
                except asyncio.CancelledError:
                    pass
    """
    ready = asyncio.Event()
    slot = await inline.acquire()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(slot.run(bench.call(text), lambda line: ready.set()))
        await ready.wait()
        await slot.kill(Outcome.CANCELLED, "test")
        result = await running
    assert result.outcome is Outcome.CANCELLED
    assert result.evidence is not None
    assert result.evidence["survivors"] == 1
    (bench.project / "end").touch()
    slot.release()


async def test_a_block_that_cancels_itself_has_failed(inline: InlineExecutor, bench: Bench) -> None:
    text = "import asyncio\n@custom\nasync def f():\n    raise asyncio.CancelledError\n"
    result = await bench.run(inline, text)
    assert result.outcome is Outcome.FAILED
    assert result.error is not None
    assert result.error.type == "asyncio.exceptions.CancelledError"


async def test_a_slot_released_in_flight_cancels_the_attempt(inline: InlineExecutor, bench: Bench) -> None:
    text = "import asyncio\n@custom\nasync def f():\n    print('up')\n    await asyncio.sleep(60)\n"
    ready = asyncio.Event()
    slot = await inline.acquire()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(slot.run(bench.call(text), lambda line: ready.set()))
        await ready.wait()
        slot.release()
    assert running.result().outcome is Outcome.CANCELLED


async def test_stopping_puts_everything_back(bench: Bench) -> None:
    before = list(sys.path), list(sys.meta_path), sys.stdout
    executor = InlineExecutor(project=bench.project, limit=1)
    await executor.start()
    text = "import mage_ai.data_preparation.decorators\n@custom\nasync def f():\n    return 1\n"
    assert values(await bench.run(executor, text)) == [1]
    await executor.stop()
    assert (list(sys.path), list(sys.meta_path), sys.stdout) == before
    assert not [name for name in sys.modules if name.startswith("mage_ai")]
