"""Blocks that misbehave: whatever they do, the attempt ends, says how, and leaves nothing behind."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.executors.base import BlockResult, LogLine
from app.executors.output import ATTEMPT_LIMIT
from app.executors.pool import WorkerPool
from app.models.states import Outcome
from tests.executors.bench import Bench, alive, values
from tests.executors.conftest import started_pool

FINE = "@custom\ndef f():\n    return 'fine'\n"


@pytest.fixture
async def pool(bench: Bench) -> AsyncIterator[WorkerPool]:
    """A pool on which, after every test, the next block runs as if nothing had been."""
    async with started_pool(bench) as pool:
        yield pool
        assert values(await bench.run(pool, FINE)) == ["fine"]


DEATHS = {
    "exit 0": ("import os; os._exit(0)", {"exit_code": 0}),
    "exit 3": ("import os; os._exit(3)", {"exit_code": 3}),
    "segfault": ("import ctypes; ctypes.string_at(0)", {"signal": "SIGSEGV"}),
    "abort": ("import os; os.abort()", {"signal": "SIGABRT"}),
    "kill -9": ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", {"signal": "SIGKILL"}),
    "closes all": ("import os, time; os.closerange(3, 1000); time.sleep(60)", {"signal": "SIGKILL"}),
    "closes and ends": ("import os; os.closerange(3, 1000)", {}),
    "closes and reopens": (
        "import os, time; os.closerange(3, 1000); keep = [open('/dev/null') for _ in range(9)]; time.sleep(60)",
        {"signal": "SIGKILL"},
    ),
    "writes junk": (
        "import os\nfor fd in range(3, 20):\n    try: os.write(fd, b'junk')\n    except OSError: pass",
        {},
    ),
    "writes much junk": (
        "import os\nfor fd in range(3, 20):\n    try: os.write(fd, b'RWf1' + b'x' * 4096)\n    except OSError: pass",
        {},
    ),
}


@pytest.mark.parametrize("name", DEATHS)
async def test_a_process_that_dies_or_breaks_its_link_is_a_crash(
    pool: WorkerPool, bench: Bench, name: str
) -> None:
    code, facts = DEATHS[name]
    body = "\n".join(f"    {line}" for line in code.splitlines())
    result = await bench.run(pool, f"@custom\ndef f():\n    print('before')\n{body}\n    return 1\n")
    assert result.outcome is Outcome.CRASHED
    assert result.evidence is not None
    assert facts.items() <= result.evidence.items()
    assert result.evidence["survivors"] == 0
    assert result.error is not None
    assert result.error.type == "WorkerCrashed"
    assert bench.texts("stdout") == ["before"]
    assert "term_at_ms" not in result.evidence, "nothing was given a grace"


async def test_a_worker_killed_from_outside_is_a_crash_at_once(pool: WorkerPool, bench: Bench) -> None:
    text = "import os, time\n@custom\ndef f():\n    print(os.getpid())\n    time.sleep(60)\n"
    pid = asyncio.get_running_loop().create_future()
    slot = await pool.acquire(None)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(slot.run(bench.call(text), lambda line: pid.set_result(int(line.text))))
        os.kill(await pid, signal.SIGKILL)
        began = time.monotonic()
        result = await running
    slot.release()
    assert time.monotonic() - began < 1.0
    assert result.outcome is Outcome.CRASHED
    assert result.evidence is not None
    assert result.evidence["signal"] == "SIGKILL"


FAMILY = """
    import os, signal, subprocess, sys, time

    IGNORE = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    STUBBORN = IGNORE + "; print('up', flush=True); time.sleep(60)"

    @custom
    def f():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE)
        child.stdout.readline()
        readable, writable = os.pipe()
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.setsid()
                os.environ.clear()
                os.execve(sys.executable, [sys.executable, "-c", STUBBORN], {})
            os._exit(0)
        os.wait()
        time.sleep(0.3)
        print("family", flush=True)
        END
"""


async def grown(bench: Bench, pool: WorkerPool, end: str) -> tuple[BlockResult, list[int]]:
    """Run the family block; when it says it is up, and is to be killed, kill it."""
    seen: list[int] = []
    ready = asyncio.Event()

    def on_line(line: LogLine) -> None:
        bench.lines.append(line)
        if line.text == "family":
            seen.extend(below(pool.warden_pid or 0))
            ready.set()

    slot = await pool.acquire(None)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(slot.run(bench.call(FAMILY.replace("END", end)), on_line))
        await ready.wait()
        if "sleep" in end:
            await slot.kill(Outcome.CANCELLED, "test")
            assert alive(seen) == []
        result = await running
    slot.release()
    return result, seen


def below(pid: int) -> list[int]:
    """Descendants by /proc: the marks in the environment are gone in one of them."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *below(child)]
    return found


async def test_a_block_that_ignores_sigterm_dies_with_its_whole_family(bench: Bench) -> None:
    async with started_pool(bench, warm=0, workers=1, kill_grace_s=5.0) as pool:
        result, family = await grown(bench, pool, "time.sleep(60)")
        assert len(family) == 3
        assert result.outcome is Outcome.CANCELLED
        assert result.evidence is not None
        assert result.evidence["signal"] == "SIGKILL"
        assert result.evidence["term_at_ms"] < 4900 < result.evidence["kill_at_ms"]
        assert (result.evidence["processes"], result.evidence["survivors"]) == (3, 0)


async def test_what_a_block_leaves_running_is_ended_with_it(bench: Bench) -> None:
    async with started_pool(bench, warm=0, workers=1) as pool:
        result, family = await grown(bench, pool, "return 'done'")
        assert len(family) == 3
        assert alive(family) == []
        assert values(result) == ["done"]
        assert "the block left 2 process(es) running; they have been ended" in bench.texts("system")


async def test_children_of_a_crashed_block_die_at_once(bench: Bench) -> None:
    async with started_pool(bench, warm=0, workers=1) as pool:
        result, family = await grown(bench, pool, "os._exit(1)")
        assert result.outcome is Outcome.CRASHED
        assert alive(family) == []
        assert result.evidence is not None and "term_at_ms" not in result.evidence


async def test_children_may_use_the_grace_when_the_block_is_gone(pool: WorkerPool, bench: Bench) -> None:
    shell = "trap 'sleep 0.1; echo cleaned > cleaned; exit' TERM; echo up; sleep 60 & wait"
    text = f"import subprocess\n@custom\ndef f():\n    subprocess.Popen(['sh', '-c', {shell!r}]).wait()\n"
    ready = asyncio.Event()
    slot = await pool.acquire(None)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(slot.run(bench.call(text), lambda line: ready.set()))
        await ready.wait()
        await slot.kill(Outcome.CANCELLED, "test")
        assert running.done() or (await running).outcome is Outcome.CANCELLED
    slot.release()
    assert (bench.project / "cleaned").read_text() == "cleaned\n"


async def test_a_forked_child_that_returns_stores_nothing(pool: WorkerPool, bench: Bench) -> None:
    text = """
        import os

        @custom
        def f():
            pid = os.fork()
            if pid:
                os.waitpid(pid, 0)
            return 'parent' if pid else 'child'
    """
    assert values(await bench.run(pool, text)) == ["parent"]


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import threading\n    return threading.Lock()", "cannot pickle '_thread.lock' object"),
        ("import sys\n    return sys._getframe()", "cannot pickle 'frame' object"),
        ("x = []\n    for _ in range(100000): x = [x]\n    return {'x': x}", "nested too deeply"),
        (
            "class E:\n        def __reduce__(self): raise ValueError('no thanks')\n    return E()",
            "no thanks",
        ),
    ],
)
async def test_what_cannot_be_stored_is_told(pool: WorkerPool, bench: Bench, code: str, told: str) -> None:
    result = await bench.run(pool, f"@custom\ndef f():\n    {code}\n")
    assert result.outcome is Outcome.FAILED
    assert result.error is not None
    assert result.error.type == "OutputNotStorable"
    assert result.error.message.startswith("output 0 (")
    assert told in result.error.message
    assert [path for path in bench.artifacts.rglob("*") if path.is_file()] == []


async def test_a_flood_of_output_is_cut_and_counted(pool: WorkerPool, bench: Bench) -> None:
    text = """
        @custom
        def f():
            for n in range(20 * 1024):
                print(f"{n:06d} " + "x" * 1016)
            return 'done'
    """
    result = await bench.run(pool, text)
    assert values(result) == ["done"]
    kept = bench.texts("stdout")
    assert ATTEMPT_LIMIT - 2048 < sum(len(text) for text in kept) <= ATTEMPT_LIMIT + 2048
    assert kept[0].startswith("000000 x")
    first, last = bench.texts("system")
    assert first == "the output limit of 10 MiB is reached: what follows is dropped"
    dropped = int(last.split(" ")[0].replace(",", ""))
    assert dropped + sum(len(text) + 1 for text in kept) == 20 * 1024 * 1024


async def test_odd_output_is_made_safe(pool: WorkerPool, bench: Bench) -> None:
    text = r"""
        import os, sys

        @custom
        def f():
            os.write(1, b'bad \xff nul \x00 end\n')
            print('lone \ud800')
            os.write(1, b'y' * 100000 + b'\n')
            os.write(1, b'10%\r50%\r100%\r\n')
            sys.stderr.write('to stderr')
    """
    await bench.run(pool, text)
    bad, lone, long, progress = bench.texts("stdout")
    assert bad == "bad \ufffd nul \ufffd end"
    assert lone == "lone \\ud800"
    assert long == "y" * 16384 + " … [83,616 more bytes of this line were dropped]"
    assert progress == "100%"
    assert [(line.text, line.level) for line in bench.lines if line.stream == "stderr"] == [
        ("to stderr", "info")
    ]


@pytest.mark.parametrize(
    "code",
    [
        "sys.stdout.close()",
        "os.close(1)",
        "os.dup2(os.open('/dev/null', os.O_WRONLY), 1)",
        "os.environ['AWS_PROFILE'] = 'other'",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
        "signal.alarm(1)",
        "threading.Thread(target=time.sleep, args=(30,), daemon=True).start()",
    ],
)
async def test_a_worker_that_cannot_be_put_right_is_not_used_again(bench: Bench, code: str) -> None:
    text = f"import os, signal, sys, threading, time\n@custom\ndef f():\n    {code}\n    return os.getpid()\n"
    check = "import os\n@custom\ndef f():\n    print('out')\n    return [os.getpid(), 'AWS_PROFILE' in os.environ]\n"
    async with started_pool(bench, workers=1) as pool:
        first = values(await bench.run(pool, text))
        second = values(await bench.run(pool, check))
        assert second[0] not in first
        assert second[1] is False
        assert bench.texts() == ["out"]


async def test_what_can_be_put_right_is(bench: Bench) -> None:
    text = """
        import io, os, sys

        @custom
        def f():
            os.chdir('/')
            sys.stdout = io.StringIO()
            sys.setrecursionlimit(100)
            return os.getpid()
    """
    check = """
        import os, sys

        @custom
        def f():
            print('heard')
            return [os.getpid(), os.getcwd(), sys.getrecursionlimit()]
    """
    async with started_pool(bench, workers=1) as pool:
        (pid,) = values(await bench.run(pool, text))
        assert values(await bench.run(pool, check)) == [pid, str(bench.project), 1000]
        assert bench.texts() == ["heard"]
