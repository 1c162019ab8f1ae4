"""Blocks that misbehave, as files of a project that a real engine runs; `make hostile` does it for long, under load."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from app.models.rows import BlockRow
from app.models.states import RunStatus
from app.scheduler.build import build_engine
from app.scheduler.engine import Engine, running
from app.scheduler.launch import LaunchRequest
from app.settings import Settings
from app.store import logs, runs
from tests.executors.bench import marked
from tests.hostile.blocks import KINDS, Kind, make
from tests.invariants import assert_hold


@asynccontextmanager
async def serving(project: Path, url: str) -> AsyncIterator[Engine]:
    """An engine with workers, that leaves nothing behind."""
    settings = Settings(
        project=project,
        database_url=url,
        workers=6,
        warm_workers=1,
        kill_grace_s=0.3,
        drain_s=0.0,
        inline=True,
        block_memory=2 * 2**30,
    )
    async with running(build_engine(settings, scheduling=False)) as engine:
        yield engine
        assert (await run(engine, "healthy"))[0] is RunStatus.COMPLETED
        await assert_hold(engine.db)
    assert marked(engine.node_id) == set()


async def run(engine: Engine, pipeline: str, told: str = "") -> tuple[RunStatus, BlockRow, bool]:
    """Run a pipeline to its end: its status, its block, whether its log tells something."""
    launched = await engine.launch(LaunchRequest(pipeline_uuid=pipeline))
    assert await engine.wait(launched.id, 90), f"{pipeline} does not end"
    found = await engine.db.read(runs.get, launched.id)
    (block,) = await engine.db.read(runs.blocks, launched.id)
    lines = await engine.db.read(logs.page, launched.id, after=None, limit=10**6) if told else []
    assert found is not None
    return found.status, block, not told or any(told in line.text for line in lines)


def wrong(kind: Kind, block: BlockRow, is_told: bool) -> list[str]:
    """What is not as it must be of a block that has ended."""
    attempt = block.attempts[-1]
    error = (block.error or {}).get("type")
    seen = (str(block.status), str(attempt.outcome), error)
    found = [] if seen in kind.ends else [f"ended as {seen}, not {kind.ends}"]
    if (attempt.evidence or {}).get("survivors", 0):
        found.append(f"left survivors: {attempt.evidence}")
    if not is_told:
        found.append(f"its log does not tell '{kind.told}'")
    return found


async def test_each_ends_as_it_must_and_the_others_do_not_notice(tmp_path: Path, sqlite_url: str) -> None:
    project = make(tmp_path / "project")
    names = [name for name, kind in KINDS.items() if not kind.apart]
    found: dict[str, Any] = {}
    async with serving(project, sqlite_url) as engine:

        async def one(name: str) -> None:
            _, block, is_told = await run(engine, name, KINDS[name].told)
            if faults := wrong(KINDS[name], block, is_told):
                found[name] = faults

        await asyncio.gather(*(one(name) for name in names))
    assert found == {}


async def test_a_killed_warden_costs_an_attempt_that_nobody_is_charged_for(
    tmp_path: Path, sqlite_url: str
) -> None:
    """The block that does it each time ends at the limit for that; what ran beside it has completed."""
    project = make(tmp_path / "project", {"kills_the_warden"})
    async with serving(project, sqlite_url) as engine:
        status, block, _ = await run(engine, "kills_the_warden")
        assert status is RunStatus.FAILED
        assert {str(attempt.outcome) for attempt in block.attempts} == {"lost"}
