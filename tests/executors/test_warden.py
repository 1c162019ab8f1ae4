"""Deaths and silences around the warden: user code never outlives the service that answers for it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from app.executors import warden
from app.executors.pool import WorkerPool
from app.models.states import Outcome
from tests.executors.bench import Bench, alive, marked, values
from tests.executors.conftest import started_pool
from tests.executors.service import SLEEPER
from tests.waits import until

ROOT = Path(__file__).parents[2]


class Service:
    """A service process of its own, with one block running in it."""

    def __init__(self, process: asyncio.subprocess.Process, node: str, warden_pid: int) -> None:
        self.process, self.node, self.warden_pid = process, node, warden_pid

    async def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        async with asyncio.timeout(15):
            heard: dict[str, Any] = json.loads(await self.process.stdout.readline())
        return heard


@asynccontextmanager
async def running_service(folder: Path) -> AsyncIterator[Service]:
    node = f"test-{uuid4()}"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.executors.service", str(folder), node, cwd=ROOT, stdout=subprocess.PIPE
    )
    service = Service(process, node, 0)
    try:
        service.warden_pid = (await service.hear())["warden"]
        assert (await service.hear()) == {"up": True}
        yield service
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await gone_within(5, node, service.warden_pid)


async def gone_within(seconds: float, node: str, *pids: int) -> float:
    """Wait until nothing with the node's mark, and none of the pids, is alive; how long it took."""
    began = time.monotonic()
    while marked(node) or alive(pids):
        assert time.monotonic() - began < seconds, (marked(node), alive(pids))
        await asyncio.sleep(0.01)
    return time.monotonic() - began


async def test_a_killed_service_takes_its_user_code_along(tmp_path: Path) -> None:
    async with running_service(tmp_path) as service:
        await until(lambda: len(marked(service.node)) >= 3)
        service.process.kill()
        await gone_within(2, service.node, service.warden_pid)


async def test_a_stopped_service_leaves_no_user_code_and_recovers(tmp_path: Path) -> None:
    async with running_service(tmp_path) as service:
        service.process.send_signal(signal.SIGSTOP)
        took = await gone_within(8, service.node)
        assert took > 3.5
        assert alive([service.warden_pid])
        service.process.send_signal(signal.SIGCONT)
        lost = await service.hear()
        assert lost["outcome"] == "lost"
        assert (lost["evidence"]["cause"], lost["evidence"]["survivors"]) == ("silence", 0)
        assert (await service.hear())["outcome"] == "completed"


async def test_a_killed_warden_takes_its_workers_along_and_is_replaced(bench: Bench) -> None:
    node = f"test-{uuid4()}"
    async with started_pool(bench, node_id=node) as pool:
        ready = asyncio.Event()
        slot = await pool.acquire(None)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(slot.run(bench.call(SLEEPER), lambda line: ready.set()))
            await ready.wait()
            before, family = pool.warden_pid, marked(node)
            assert before is not None
            os.kill(before, signal.SIGKILL)
            result = await running
        assert alive(family) == []
        assert result.outcome is Outcome.LOST
        assert result.error is not None
        assert result.error.type == "WorkerLost"
        assert pool.warden_pid != before
        assert values(await slot.run(bench.call("@custom\ndef f():\n    return 1\n"), list)) == [1]
        slot.release()


async def test_a_block_whose_worker_was_being_started_when_the_warden_died_is_lost_not_failed(
    bench: Bench,
) -> None:
    async with started_pool(bench, warm=0, workers=1) as pool:
        slot = await pool.acquire(None)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(slot.run(bench.call(SLEEPER), list))
            while not pool._workers:
                await asyncio.sleep(0)
            assert pool.warden_pid is not None
            os.kill(pool.warden_pid, signal.SIGKILL)
            result = await running
        assert result.outcome is Outcome.LOST
        assert result.error is not None and result.error.type == "WorkerLost"
        assert values(await slot.run(bench.call("@custom\ndef f():\n    return 1\n"), list)) == [1]
        slot.release()


async def test_a_block_that_finds_no_warden_is_lost_not_failed(bench: Bench) -> None:
    """A warden that dies before its first word is tried again a second later."""
    async with started_pool(bench, warm=0, workers=1) as pool:
        assert pool._warden is not None
        control, pool._warden._control = pool._warden._control, None
        result = await bench.run(pool, "@custom\ndef f():\n    return 1\n")
        assert (result.outcome, result.error and result.error.type) == (Outcome.LOST, "WorkerLost")
        pool._warden._control = control
        assert values(await bench.run(pool, "@custom\ndef f():\n    return 1\n")) == [1]


async def test_a_stopped_warden_is_replaced(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.executors.wardenlink.BEAT_S", 0.05)
    async with started_pool(bench) as pool:
        before = pool.warden_pid
        assert before is not None
        os.kill(before, signal.SIGSTOP)
        await until(lambda: pool.warden_pid != before)
        assert values(await bench.run(pool, "@custom\ndef f():\n    return 1\n")) == [1]


async def test_strays_of_dead_nodes_are_swept_at_the_start(bench: Bench) -> None:
    dead = f"test-{uuid4()}"
    environment = {**os.environ, "_RUNWRIGHT_NODE": dead}
    stray = subprocess.Popen(["sleep", "60"], env=environment, start_new_session=True)
    other = subprocess.Popen(["sleep", "60"], env={**environment, "_RUNWRIGHT_NODE": dead + "0"})
    try:
        async with started_pool(bench, sweep=[dead]):
            assert alive([stray.pid, other.pid]) == [other.pid]
    finally:
        for process in (stray, other):
            process.kill()
            process.wait()


async def test_no_signal_but_the_one_for_it_ends_the_warden(pool: WorkerPool, bench: Bench) -> None:
    """A block is its child, and may be careless with `os.kill(os.getppid(), …)`."""
    warden = pool.warden_pid
    assert warden is not None
    ours = {signal.SIGILL, signal.SIGTRAP, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV}
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP} - ours:
        os.kill(warden, number)
    assert values(await bench.run(pool, "@custom\ndef f():\n    return 1\n")) == [1]
    assert pool.warden_pid == warden


async def test_workers_do_not_inherit_our_settings(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNWRIGHT_ADMIN_KEY", "secret")
    monkeypatch.setenv("MY_SETTING", "mine")
    text = """
        import os, signal

        @custom
        def f():
            keys = [key for key in os.environ if key.startswith('RUNWRIGHT')]
            fds = sorted(int(fd) for fd in os.listdir('/proc/self/fd'))
            return [os.environ['MY_SETTING'], keys, fds, os.getsid(0) == os.getpid()]
    """
    async with started_pool(bench) as pool:
        mine, keys, fds, leads = values(await bench.run(pool, text))
        assert (mine, keys, leads) == ("mine", [], True)
        # 0, 1, 2, the link, and the one that lists them
        assert len(fds) == 5


async def test_stop_ends_what_runs_as_lost(bench: Bench) -> None:
    async with started_pool(bench) as pool:
        ready = asyncio.Event()
        slot = await pool.acquire(None)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(slot.run(bench.call(SLEEPER), lambda line: ready.set()))
            await ready.wait()
            await pool.stop()
        assert running.result().outcome is Outcome.LOST


def test_the_tree_is_read_with_any_command_name(tmp_path: Path) -> None:
    odd = tmp_path / "a) R 1 (b"
    odd.symlink_to("/bin/sleep")
    process = subprocess.Popen([str(odd), "60"])
    try:
        assert process.pid in warden.descendants(warden.read_tree(), os.getpid())
    finally:
        process.kill()
        process.wait()
