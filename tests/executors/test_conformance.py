"""What every executor promises about a block. The blocks are `async def`, which both run."""

import asyncio
from typing import Any

import pytest

from app.executors.base import Executor, LogLine
from app.models.states import Outcome
from tests.executors.bench import Bench, values


def json_output(value: Any) -> dict[str, Any]:
    return {"kind": "json", "value": value}


@pytest.mark.parametrize(
    ("returned", "outputs"),
    [
        ("None", []),
        ("1", [1]),
        ("{'a': [1, None, 'ü']}", [{"a": [1, None, "ü"]}]),
        ("[1, 2]", [1, 2]),
        ("(1, [2])", [1, [2]]),
        ("[]", []),
        ("[[]]", [[]]),
        ("False", [False]),
    ],
)
async def test_a_returned_value_becomes_outputs(
    executor: Executor, bench: Bench, returned: str, outputs: list[Any]
) -> None:
    result = await bench.run(executor, f"@custom\nasync def f():\n    return {returned}\n")
    assert result.outcome is Outcome.COMPLETED
    assert values(result) == outputs


async def test_many_outputs_arrive_as_one_list(executor: Executor, bench: Bench) -> None:
    made = await bench.run(executor, "@custom\nasync def f():\n    return list(range(1000))\n")
    assert len(made.outputs) == 1
    result = await bench.run(
        executor,
        "@custom\nasync def f(numbers):\n    return [[len(numbers), numbers[-1]], 0]\n",
        uuid="next",
        inputs=[("block", made.outputs)],
    )
    assert values(result) == [[1000, 999], 0]


async def test_inputs_come_in_the_order_of_the_upstreams(executor: Executor, bench: Bench) -> None:
    inputs = [
        ("one", [json_output("a")]),
        ("none", []),
        ("two", [json_output("b"), json_output("c")]),
    ]
    result = await bench.run(
        executor, "@custom\nasync def f(*args):\n    return {'args': list(args)}\n", inputs=inputs
    )
    assert values(result) == [{"args": ["a", None, ["b", "c"]]}]


async def test_upstreams_are_preset_as_names(executor: Executor, bench: Bench) -> None:
    text = """
        GREETING = f"{load} {df_1} {df_2}"

        @custom
        async def f(a, b):
            return GREETING
    """
    inputs = [("load", [json_output(1)]), ("other", [json_output(2)])]
    assert values(await bench.run(executor, text, inputs=inputs)) == ["1 1 2"]


async def test_kwargs_hold_variables_and_built_ins(executor: Executor, bench: Bench) -> None:
    text = """
        @transformer
        async def f(data, **kwargs):
            date = kwargs["execution_date"]
            return {
                "names": sorted(kwargs),
                "moment": [type(date).__name__, date.isoformat(), date.utcoffset().total_seconds()],
                "configuration": kwargs["configuration"],
                "where": [kwargs["pipeline_uuid"], kwargs["block_uuid"]],
                "repo": kwargs["repo_path"],
                "retry": kwargs["retry"],
                "context": kwargs["context"],
                "empty": kwargs["interval_end_datetime"],
            }
    """
    result = await bench.run(
        executor,
        text,
        type="transformer",
        uuid="clean",
        inputs=[("load", [json_output(1)])],
        configuration={"limit": 3},
        kwargs={
            "answer": 42,
            "execution_date": "2026-03-29T02:30:00+01:00",
            "interval_end_datetime": None,
            "pipeline_uuid": "a variable may not hide it",
        },
        datetimes=["execution_date", "interval_end_datetime"],
        attempt=3,
        tries=3,
    )
    (found,) = values(result)
    assert found["names"] == [
        "answer",
        "block_uuid",
        "configuration",
        "context",
        "execution_date",
        "interval_end_datetime",
        "logger",
        "pipeline_uuid",
        "repo_path",
        "retry",
    ]
    assert found["moment"] == ["datetime", "2026-03-29T02:30:00+01:00", 3600.0]
    assert found["configuration"] == {"limit": 3}
    assert found["where"] == ["pipe", "clean"]
    assert found["repo"] == str(bench.project)
    assert found["retry"] == {"attempts": 3}
    assert (found["context"], found["empty"]) == ({}, None)


async def test_kwargs_come_only_to_those_who_take_them(executor: Executor, bench: Bench) -> None:
    text = "@custom\nasync def f(answer=1):\n    return answer\n"
    assert values(await bench.run(executor, text, kwargs={"answer": 42})) == [1]


@pytest.mark.parametrize(
    ("signature", "inputs", "told"),
    [
        ("a, b", 1, "takes 2 input(s), but the block has 1 upstream block(s)"),
        ("", 1, "takes 0 input(s), but the block has 1 upstream block(s)"),
        ("a, b=1", 3, "takes 1 to 2 input(s)"),
        ("a, b, *args", 1, "takes at least 2 input(s)"),
    ],
)
async def test_a_wrong_number_of_inputs_is_told(
    executor: Executor, bench: Bench, signature: str, inputs: int, told: str
) -> None:
    upstream = [(f"up{n}", [json_output(n)]) for n in range(inputs)]
    text = f"@custom\nasync def f({signature}):\n    return 1\n"
    result = await bench.run(executor, text, inputs=upstream)
    assert result.outcome is Outcome.FAILED
    assert result.error is not None
    assert result.error.type == "WrongArguments"
    assert told in result.error.message


async def test_only_the_first_decorated_function_runs(executor: Executor, bench: Bench) -> None:
    text = """
        @custom
        async def first():
            return 1

        @custom
        async def second():
            return 2
    """
    assert values(await bench.run(executor, text)) == [1]


async def test_a_file_without_a_function_is_told(executor: Executor, bench: Bench) -> None:
    result = await bench.run(executor, "@test\ndef f():\n    pass\n")
    assert result.error is not None
    assert result.error.type == "NoFunction"
    assert "customs/block.py is decorated with @custom" in result.error.message
    assert result.error.file == "customs/block.py"


async def test_decorators_are_importable_as_projects_for_mage_do(executor: Executor, bench: Bench) -> None:
    bench.write(
        "loaders/other.py", "from mage_ai.data_preparation.decorators import custom\n@custom\ndef g(): 1\n"
    )
    text = """
        import loaders.other
        from mage_ai.data_preparation.decorators import custom, test

        if 'custom' not in globals():
            raise RuntimeError('not set')

        @custom
        async def f():
            return 'ours'

        @test
        def check(output, *args):
            assert output == 'ours'
    """
    assert values(await bench.run(executor, text)) == ["ours"]


async def test_preprocessers_run_first(executor: Executor, bench: Bench) -> None:
    text = """
        seen = []

        @preprocesser
        async def first(*args, **kwargs):
            seen.append(kwargs["block_uuid"])

        @preprocesser
        def second():
            seen.append("second")

        @custom
        async def f():
            return {"seen": seen}
    """
    assert values(await bench.run(executor, text)) == [{"seen": ["block", "second"]}]


async def test_tests_get_the_raw_outputs(executor: Executor, bench: Bench) -> None:
    text = """
        @custom
        async def f():
            return [1], {2: 3}.get(2)

        @test
        def one(first, second, **kwargs):
            assert (first, second) == ([1], 3)
            first.append("a test that changes its copy changes no output")

        @test
        async def two(first, *rest):
            assert rest == (3,)
    """
    assert values(await bench.run(executor, text)) == [[1], 3]


async def test_a_failed_test_fails_the_block_and_all_tests_run(executor: Executor, bench: Bench) -> None:
    text = """
        @custom
        async def f():
            return None

        @test
        def defined(output, *args):
            assert output is not None, 'The output is undefined'

        @test
        def passes(*args):
            print('still run')

        @test
        def silent():
            assert 1 == 2
    """
    result = await bench.run(executor, text)
    assert (result.outcome, result.outputs) == (Outcome.FAILED, ())
    assert result.error is not None
    assert result.error.type == "TestsFailed"
    assert result.error.message == (
        "2 of 3 failed to pass tests: defined: The output is undefined; silent: assertion failed"
    )
    assert (result.error.file, result.error.line) == ("customs/block.py", 8)
    assert "still run" in bench.texts("stdout")


async def test_any_other_exception_in_a_test_is_the_error(executor: Executor, bench: Bench) -> None:
    text = "@custom\nasync def f():\n    return 1\n@test\ndef t(output):\n    output.missing\n"
    result = await bench.run(executor, text)
    assert result.error is not None
    assert (result.error.type, result.error.line) == ("AttributeError", 6)


@pytest.mark.parametrize(("answer", "false"), [("True", False), ("[]", True), ("None", True), ("0.5", False)])
async def test_a_sensor_answers_once(executor: Executor, bench: Bench, answer: str, false: bool) -> None:
    text = f"@sensor\nasync def f(**kwargs):\n    return {answer}\n"
    inputs = [("up", [json_output(1)])]
    result = await bench.run(executor, text, type="sensor", inputs=inputs)
    assert (result.outcome, result.value_false, result.outputs) == (Outcome.COMPLETED, false, ())


async def test_an_exception_is_told_with_its_place(executor: Executor, bench: Bench) -> None:
    bench.write("helpers.py", "def divide(a, b):\n    return a / b\n")
    text = """
        import helpers

        @custom
        async def f():
            return helpers.divide(1, 0)
    """
    result = await bench.run(executor, text)
    assert result.outcome is Outcome.FAILED
    assert result.error is not None
    assert (result.error.type, result.error.message) == ("ZeroDivisionError", "division by zero")
    assert (result.error.file, result.error.line) == ("helpers.py", 2)
    assert "return helpers.divide(1, 0)" in result.error.traceback
    assert "executors" not in result.error.traceback
    assert result.code_hash is not None


async def test_the_place_of_an_error_in_a_library_is_the_line_that_called_it(
    executor: Executor, bench: Bench
) -> None:
    text = "import json\n\n@custom\nasync def f():\n    return json.loads('{')\n"
    result = await bench.run(executor, text)
    assert result.error is not None
    assert result.error.type == "json.decoder.JSONDecodeError"
    assert (result.error.file, result.error.line) == ("customs/block.py", 5)


@pytest.mark.parametrize(
    ("text", "kind", "line"),
    [
        ("@custom\nasync def f():\n    return (\n", "SyntaxError", 3),
        ("import no_such_module_here\n", "ModuleNotFoundError", 1),
        ("@custom\nasync def f():\n    raise SystemExit(0)\n", "SystemExit", 3),
        ("@custom\nasync def f():\n    raise KeyboardInterrupt\n", "KeyboardInterrupt", 3),
        ("import sys\nsys.exit()\n", "SystemExit", 2),
        ("@custom\nasync def f():\n    def g(): return g()\n    g()\n", "RecursionError", 3),
        ("class E(Exception): pass\n@custom\nasync def f():\n    raise E('x')\n", "E", 4),
    ],
)
async def test_every_kind_of_failure_has_a_type_and_a_line(
    executor: Executor, bench: Bench, text: str, kind: str, line: int
) -> None:
    result = await bench.run(executor, text)
    assert result.outcome is Outcome.FAILED
    assert result.error is not None
    assert (result.error.type, result.error.file, result.error.line) == (kind, "customs/block.py", line)
    assert values(await bench.run(executor, "@custom\nasync def f():\n    return 'next'\n")) == ["next"]


async def test_an_error_message_is_safe_for_a_database(executor: Executor, bench: Bench) -> None:
    text = "@custom\nasync def f():\n    raise ValueError('a\\0b\\ud800c' + 'x' * 100000)\n"
    result = await bench.run(executor, text)
    assert result.error is not None
    assert result.error.message.startswith("a\\x00b\\ud800cxxx")
    assert len(result.error.message) <= 8192
    assert len(result.error.traceback) <= 65536
    assert "\0" not in result.error.traceback
    result.error.traceback.encode()


async def test_an_error_that_cannot_be_shown_is_still_told(executor: Executor, bench: Bench) -> None:
    text = """
        class Broken(Exception):
            def __str__(self):
                raise RuntimeError
        @custom
        async def f():
            raise Broken
    """
    result = await bench.run(executor, text)
    assert result.error is not None
    assert (result.error.type, result.error.message) == ("Broken", "<its __str__ raised RuntimeError>")


async def test_a_missing_file_is_told(executor: Executor, bench: Bench) -> None:
    result = await bench.run(executor, None)
    assert result.error is not None
    assert result.error.message == "cannot read customs/block.py: No such file or directory"


async def test_prints_and_the_logger_reach_the_log_in_order(executor: Executor, bench: Bench) -> None:
    text = """
        import sys

        @custom
        async def f(**kwargs):
            logger = kwargs['logger']
            print('one')
            logger.info('two\\nlines')
            print('three', end='')
            logger.warning('%s', 'four')
            logger.debug('five')
            try:
                1 / 0
            except ZeroDivisionError:
                logger.exception('six')
            print('last', end='')
    """
    assert (await bench.run(executor, text)).outcome is Outcome.COMPLETED
    lines = [line for line in bench.lines if not line.text.startswith(("Traceback", "  ", "Zero"))]
    assert lines == [
        LogLine("stdout", "info", "one"),
        LogLine("log", "info", "two"),
        LogLine("log", "info", "lines"),
        LogLine("stdout", "info", "three"),
        LogLine("log", "warning", "four"),
        LogLine("log", "debug", "five"),
        LogLine("log", "error", "six"),
        LogLine("stdout", "info", "last"),
    ]


async def test_no_line_reaches_the_next_block(executor: Executor, bench: Bench) -> None:
    await bench.run(executor, "@custom\nasync def f():\n    print('mine', end='')\n")
    assert bench.texts() == ["mine"]
    await bench.run(executor, "@custom\nasync def f():\n    print('other')\n")
    assert bench.texts() == ["other"]


async def test_the_hash_is_that_of_the_file_as_it_ran(executor: Executor, bench: Bench) -> None:
    text = "@custom\nasync def f():\n    return {}\n"
    first = await bench.run(executor, text.format(1))
    second = await bench.run(executor, text.format(2))
    assert first.code_hash != second.code_hash
    assert values(first) + values(second) == [1, 2]


async def test_a_kill_ends_the_attempt_and_the_slot_goes_on(executor: Executor, bench: Bench) -> None:
    text = """
        import asyncio, pathlib

        @custom
        async def f(**kwargs):
            try:
                print('started')
                await asyncio.sleep(60)
            finally:
                pathlib.Path(kwargs['repo_path'], 'cleaned').write_text('up')
    """
    started = asyncio.Event()
    slot = await executor.acquire(None)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(slot.run(bench.call(text), lambda line: started.set()))
        await started.wait()
        await slot.kill(Outcome.TIMEOUT, "block timeout of 1 s")
        result = await running
    assert result.outcome is Outcome.TIMEOUT
    assert result.evidence is not None
    assert (result.evidence["reason"], result.evidence["survivors"]) == ("block timeout of 1 s", 0)
    assert (bench.project / "cleaned").read_text() == "up"
    again = await slot.run(bench.call("@custom\nasync def f():\n    return 1\n"), lambda line: None)
    assert values(again) == [1]
    await slot.kill(Outcome.CANCELLED, "nothing is in flight: nothing happens")
    slot.release()


async def test_slots_are_bounded_and_given_in_order(executor: Executor, bench: Bench) -> None:
    first, second = await executor.acquire(None), await executor.acquire(None)
    assert executor.acquire_now(None) is None
    order: list[str] = []

    async def wait(name: str) -> None:
        slot = await executor.acquire(None)
        order.append(name)
        slot.release()

    async with asyncio.TaskGroup() as group:
        waiters = [group.create_task(wait(name)) for name in ("a", "b", "c")]
        await asyncio.sleep(0)
        waiters[1].cancel()
        await asyncio.sleep(0)
        first.release()
    assert order == ["a", "c"]
    second.release()
    slots = [await executor.acquire(None), await executor.acquire(None)]
    for slot in slots:
        slot.release()
