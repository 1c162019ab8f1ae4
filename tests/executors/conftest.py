from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from app.executors.base import Executor
from app.executors.inline import InlineExecutor
from app.executors.pool import WorkerPool
from tests.executors.bench import Bench, marked


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@asynccontextmanager
async def started_pool(bench: Bench, **settings: Any) -> AsyncIterator[WorkerPool]:
    """A pool that is stopped in the end, whereupon nothing of it may be alive."""
    node = settings.setdefault("node_id", f"test-{uuid4()}")
    values = {"project": bench.project, "workers": 2, "warm": 1, "kill_grace_s": 0.3, **settings}
    pool = WorkerPool(**values)
    await pool.start()
    try:
        yield pool
    finally:
        await pool.stop()
        assert marked(node) == set()


@pytest.fixture
async def pool(bench: Bench) -> AsyncIterator[WorkerPool]:
    async with started_pool(bench) as pool:
        yield pool


@pytest.fixture
async def inline(bench: Bench) -> AsyncIterator[InlineExecutor]:
    executor = InlineExecutor(project=bench.project, limit=2)
    await executor.start()
    try:
        yield executor
    finally:
        await executor.stop()


@pytest.fixture(params=["worker", "inline"])
async def executor(request: pytest.FixtureRequest, bench: Bench) -> AsyncIterator[Executor]:
    """Both executors, one after the other: what is promised for a block holds on each."""
    if request.param == "worker":
        async with started_pool(bench) as pool:
            yield pool
    else:
        inline = InlineExecutor(project=bench.project, limit=2)
        await inline.start()
        yield inline
        await inline.stop()
