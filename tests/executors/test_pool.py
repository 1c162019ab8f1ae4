"""The pool: workers kept warm, used again, replaced, told apart by interpreter; and the project they see."""

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from app.executors import pool as pool_module
from app.executors.base import Ask
from app.executors.pool import WorkerPool
from app.models.states import Outcome
from tests.executors.bench import Bench, alive, values
from tests.executors.conftest import started_pool
from tests.waits import until

PID = "import os\n@custom\ndef f():\n    return os.getpid()\n"


def version_of(python: Path) -> list[int]:
    return [int(part) for part in python.parts[-3].split(".")[:2]]


# Interpreters beside ours that this machine has, the oldest first.
OTHERS = sorted(
    (
        path
        for path in Path.home().glob(".pyenv/versions/3.*/bin/python")
        if version_of(path) >= [3, 8] and path.resolve() != Path(sys.executable).resolve()
    ),
    key=version_of,
)


async def pid_of(bench: Bench, pool: WorkerPool, **more: Any) -> int:
    (pid,) = values(await bench.run(pool, PID, **more))
    return int(pid)


async def test_a_worker_is_used_again(pool: WorkerPool, bench: Bench) -> None:
    assert await pid_of(bench, pool) == await pid_of(bench, pool)


async def test_a_warm_slot_is_there_at_once(pool: WorkerPool, bench: Bench) -> None:
    slot = pool.acquire_now(None)
    assert slot is not None
    assert pool.acquire_now(None) is None  # one warm worker only, though there is room for two
    assert pool.acquire_now("/some/other/python") is None
    result = await slot.run(bench.call(PID), list)
    slot.release()
    assert result.outcome is Outcome.COMPLETED
    assert pool.acquire_now(None) is not None


async def test_a_worker_is_replaced_after_its_uses(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "USES", 3)
    async with started_pool(bench, workers=1) as pool:
        slot = await pool.acquire(None)
        pids = [values(await slot.run(bench.call(PID), list))[0] for _ in range(7)]
        slot.release()
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]


async def test_an_idle_worker_retires_down_to_the_warm_ones(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "_IDLE_S", 0.0)
    monkeypatch.setattr(pool_module, "_TEND_S", 0.05)
    async with started_pool(bench) as pool:
        slots = [await pool.acquire(None) for _ in range(2)]
        pids = [values(await slot.run(bench.call(PID), list))[0] for slot in slots]
        for slot in slots:
            slot.release()
        await until(lambda: len(alive(pids)) <= 1)
        await asyncio.sleep(0.15)
        assert len(alive(pids)) == 1
        assert await pid_of(bench, pool) in pids


async def test_an_interpreter_that_does_not_exist_is_told(pool: WorkerPool, bench: Bench) -> None:
    result = await bench.run(pool, PID, python="/no/such/python")
    assert result.outcome is Outcome.FAILED
    assert result.error is not None
    assert result.error.type == "InterpreterUnavailable"
    assert result.error.message == (
        "interpreter '/no/such/python' cannot be started: No such file or directory"
    )
    assert await pid_of(bench, pool)


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo 'no module named x' >&2; exit 3", "(exit code 3); it said: no module named x"),
        ("kill -9 $$", "(signal SIGKILL)"),
    ],
)
async def test_an_interpreter_that_ends_at_once_is_told(
    pool: WorkerPool, bench: Bench, script: str, told: str
) -> None:
    python = bench.write("python", f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    result = await bench.run(pool, PID, python=str(python))
    assert result.outcome is Outcome.FAILED
    assert result.error is not None
    assert result.error.message == f"interpreter '{python}' ended before it was ready {told}"


async def test_a_pool_starts_with_a_broken_default_interpreter(bench: Bench) -> None:
    async with started_pool(bench, python="/no/such/python") as pool:
        result = await bench.run(pool, PID)
        assert result.error is not None
        assert result.error.type == "InterpreterUnavailable"
        assert await pid_of(bench, pool, python=sys.executable)


async def test_a_kill_need_not_wait_for_an_interpreter(bench: Bench) -> None:
    slow = bench.write("python", "#!/bin/sh\nsleep 60\n")
    slow.chmod(0o755)
    async with started_pool(bench, warm=1, workers=1) as pool:
        slot = await pool.acquire(None)
        slot._python = str(slow)
        assert slot._worker is not None
        slot._worker.retire()
        async with asyncio.TaskGroup() as group:
            running = group.create_task(slot.run(bench.call(PID), list))
            await asyncio.sleep(0.05)
            async with asyncio.timeout(1):
                await slot.kill(Outcome.CANCELLED, "test")
        result = running.result()
        slot.release()
    assert (result.outcome, result.evidence and result.evidence["started"]) == (Outcome.CANCELLED, False)


async def test_a_cancelled_waiter_for_a_worker_takes_nothing_with_it(bench: Bench) -> None:
    async with started_pool(bench, warm=0, workers=1) as pool:
        waiting = asyncio.ensure_future(pool.acquire(None))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        async with asyncio.timeout(5):
            assert await pid_of(bench, pool)


async def test_a_slot_released_in_flight_ends_the_attempt(bench: Bench) -> None:
    async with started_pool(bench, workers=1) as pool:
        slot = await pool.acquire(None)
        pid = asyncio.get_running_loop().create_future()
        text = "import os, time\n@custom\ndef f():\n    print(os.getpid())\n    time.sleep(60)\n"
        running = asyncio.ensure_future(
            slot.run(bench.call(text), lambda line: pid.set_result(int(line.text)))
        )
        await pid
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        slot.release()
        await until(lambda: not alive([pid.result()]))
        assert await pid_of(bench, pool)


async def test_a_kill_after_its_waiter_was_cancelled_still_ends_the_attempt(bench: Bench) -> None:
    async with started_pool(bench, workers=1) as pool:
        slot = await pool.acquire(None)
        pid = asyncio.get_running_loop().create_future()
        text = "import os, time\n@custom\ndef f():\n    print(os.getpid())\n    time.sleep(60)\n"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await slot.run(bench.call(text), lambda line: pid.set_result(int(line.text)))
        await slot.kill(Outcome.TIMEOUT, "block timeout")
        assert alive([pid.result()]) == []
        assert values(await slot.run(bench.call(PID), list))
        slot.release()


if OTHERS:

    @pytest.mark.parametrize("python", [OTHERS[0], OTHERS[-1]], ids=lambda path: path.parts[-3])
    async def test_another_interpreter_runs_blocks(bench: Bench, python: Path) -> None:
        text = """
            import sys
            from dataclasses import dataclass
            from mage_ai.data_preparation.decorators import custom

            @dataclass
            class Point:
                x: int

            @custom
            async def f(*args, **kwargs):
                kwargs['logger'].info('on %s', sys.version_info[0])
                return {'version': list(sys.version_info[:2]), 'when': str(kwargs['execution_date'])}

            @test
            def check(output, *args):
                assert Point(1).x == 1
        """
        async with started_pool(bench, workers=1) as pool:
            ours = await pid_of(bench, pool)
            result = await bench.run(
                pool,
                text,
                python=str(python),
                kwargs={"execution_date": "2026-01-01T00:00:00.5Z"},
                datetimes=["execution_date"],
            )
            (found,) = values(result)
            assert found["version"] == version_of(python)
            assert found["when"] == "2026-01-01 00:00:00.500000+00:00"
            assert bench.texts("log") == ["on 3"]
            broken = await bench.run(pool, "@custom\ndef f():\n    return 1 +\n", python=str(python))
            assert broken.error is not None
            assert (broken.error.type, broken.error.line) == ("SyntaxError", 3)
            # The idle worker of the other interpreter has made room.
            await until(lambda: not alive([ours]))


async def test_a_project_may_have_packages_named_like_ours(pool: WorkerPool, bench: Bench) -> None:
    bench.write("app/__init__.py", "NAME = 'app of the project'\n")
    bench.write("app/executors/__init__.py", "")
    bench.write("worker.py", "NAME = 'worker of the project'\n")
    bench.write("frames/__init__.py", "NAME = 'frames of the project'\n")
    bench.write("attempt.py", "NAME = 'attempt of the project'\n")
    text = """
        import app, app.executors, attempt, frames, worker

        @custom
        def f():
            return [module.NAME for module in (app, attempt, frames, worker)]
    """
    found = values(await bench.run(pool, text))
    assert found == [f"{name} of the project" for name in ("app", "attempt", "frames", "worker")]


async def test_modules_are_found_from_the_project_and_from_beside_it(pool: WorkerPool, bench: Bench) -> None:
    bench.write("utils/__init__.py", "")
    bench.write("utils/names.py", "X = 'x'\n")
    text = """
        import os
        from utils.names import X
        from demo.utils.names import X as SAME

        @custom
        def f():
            return [X, SAME, os.getcwd()]
    """
    assert values(await bench.run(pool, text)) == ["x", "x", str(bench.project)]


async def test_a_library_named_like_a_block_folder_is_the_library(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site-packages"
    (site / "transformers").mkdir(parents=True)
    (site / "transformers" / "__init__.py").write_text("NAME = 'library'\n")
    (site / "shared.py").write_text("NAME = 'library'\n")
    monkeypatch.setenv("PYTHONPATH", str(site))
    bench.write("transformers/__init__.py", "NAME = 'block folder'\n")
    bench.write("custom/__init__.py", "NAME = 'block folder'\n")
    bench.write("shared.py", "NAME = 'project'\n")
    text = """
        import custom as folder, shared, transformers

        @custom
        def f():
            return [folder.NAME, shared.NAME, transformers.NAME]
    """
    async with started_pool(bench) as pool:
        assert values(await bench.run(pool, text)) == ["block folder", "project", "library"]


async def test_changed_code_of_the_project_is_used_at_once(bench: Bench) -> None:
    text = "import os, helper\n@custom\ndef f():\n    return [helper.VALUE, os.getpid()]\n"
    bench.write("helper.py", "VALUE = 1\n")
    async with started_pool(bench, workers=1) as pool:
        await asyncio.sleep(0.05)  # a file as young as the attempt is not trusted to be what was imported
        slot = await pool.acquire(None)
        first = values(await slot.run(bench.call(text), list))
        same = values(await slot.run(bench.call(text), list))
        bench.write("helper.py", "VALUE = 2 # longer\n")
        changed = values(await slot.run(bench.call(text), list))
        slot.release()
    assert first == same
    assert (first[0], changed[0]) == (1, 2)
    assert first[1] != changed[1]


async def test_a_class_of_the_block_travels_by_value(pool: WorkerPool, bench: Bench) -> None:
    text = """
        from __future__ import annotations
        from dataclasses import dataclass

        @dataclass
        class Point:
            x: int
            y: float = 0.5

        @custom
        def f():
            return Point(1), lambda n: n + 1
    """
    made = await bench.run(pool, text)
    assert [ref["kind"] for ref in made.outputs] == ["pickle", "pickle"]
    assert [ref["type"] for ref in made.outputs] == ["Point", "function"]
    text = "@custom\ndef f(both):\n    point, add = both\n    return [point.x, point.y, add(1)]\n"
    result = await bench.run(pool, text, uuid="next", inputs=[("block", made.outputs)])
    assert values(result) == [1, 0.5, 2]


async def test_an_output_that_is_gone_is_told(pool: WorkerPool, bench: Bench) -> None:
    made = await bench.run(pool, "@custom\ndef f():\n    return {1, 2}\n")
    (bench.artifacts / made.outputs[0]["path"]).unlink()
    result = await bench.run(
        pool, "@custom\ndef f(x):\n    return 1\n", uuid="next", inputs=[("block", made.outputs)]
    )
    assert result.error is not None
    assert result.error.type == "InputMissing"
    assert "the output of block 'block' cannot be opened: FileNotFoundError" in result.error.message


async def test_big_and_odd_inputs_arrive(pool: WorkerPool, bench: Bench) -> None:
    odd = {"big": 2**70, "lone": "\ud800", "long": "x" * 2_000_000}
    text = r"""
        @custom
        def f(**kwargs):
            return [kwargs['lone'] == '\ud800', len(kwargs['long']), kwargs['big'] == 2**70]
    """
    assert values(await bench.run(pool, text, kwargs=odd)) == [True, 2_000_000, True]


async def test_more_than_a_call_takes_is_a_failure_that_says_so(pool: WorkerPool, bench: Bench) -> None:
    big = [{"kind": "json", "value": "x" * 2**20, "type": "str", "size": 2**20}] * 65
    slot = await pool.acquire(None)
    taken = bench.call("@custom\ndef f(x):\n    return len(x)\n", inputs=[("many", big)])
    result = await slot.run(taken, bench.lines.append)
    assert result.error is not None
    assert (result.outcome, result.error.type) == (Outcome.FAILED, "InputTooLarge")
    assert "64 MiB" in result.error.message
    taken = bench.call("@custom\ndef f(x):\n    return len(x)\n", inputs=[("few", big[:3])])
    assert values(await slot.run(taken, bench.lines.append)) == [3]
    slot.release()


@pytest.mark.parametrize(
    ("argument", "read", "answer", "told"),
    [
        ("1", 1, {"value": "x" * 2**26}, "AnswerTooLarge: the answer takes more than 64 MiB"),
        ("'\\ud800'", "\ud800", {"value": False}, "False"),
        ("float('-inf')", float("-inf"), {"value": False}, "False"),
    ],
)
async def test_odd_questions_and_answers_do_not_break_the_link(
    pool: WorkerPool, bench: Bench, argument: str, read: Any, answer: Any, told: str
) -> None:
    text = f"""
        from mage_ai.orchestration.run_status_checker import check_status
        @custom
        def f():
            try:
                return str(check_status("q", "now", hours={argument}))
            except Exception as error:
                return str(error)
    """
    asked: list[Any] = []

    def on_ask(ask: Ask) -> None:
        asked.append(ask.payload["hours"])
        ask.answer(answer)

    slot = await pool.acquire(None)
    result = await slot.run(bench.call(text), bench.lines.append, on_ask)
    slot.release()
    assert told in values(result)[0]
    assert asked == [read]


async def test_importing_pandas_does_not_cost_the_worker(pool: WorkerPool, bench: Bench) -> None:
    pytest.importorskip("pandas")
    text = "import os, pandas, pyarrow.parquet\n@custom\ndef f():\n    return os.getpid()\n"
    first = values(await bench.run(pool, text))
    assert values(await bench.run(pool, text)) == first


async def test_a_chain_of_trivial_blocks_is_quick(pool: WorkerPool, bench: Bench) -> None:
    call = bench.call("@custom\ndef f(*args, **kwargs):\n    return 1\n")
    slot = await pool.acquire(None)
    best = float("inf")
    for _ in range(2):
        began = time.perf_counter()
        for _ in range(40):
            await slot.run(call, list)
        best = min(best, time.perf_counter() - began)
    slot.release()
    assert best < 0.1, f"{best * 1000:.1f} ms"


async def test_an_idle_worker_is_small(pool: WorkerPool, bench: Bench) -> None:
    pid = await pid_of(bench, pool)
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    own = sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
    assert own < 10 * 1024, f"{own} KiB"
