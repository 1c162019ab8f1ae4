"""An open database of each kind, with a node, for tests of store functions."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import asyncpg
import pytest
from sqlalchemy import text

from app import clock
from app.models.pipeline import Block, BlockType, Pipeline
from app.models.rows import RunRow
from app.models.states import Cause, NodeState
from app.scheduler.admission import admissible
from app.store import launch, nodes
from app.store.admit import Claimer
from app.store.db import Database, Tx
from app.store.ids import Ids
from app.store.launch import NewBlock, NewRun
from app.store.nodes import NodeRow
from app.store.opening import backend_for, open_database
from app.store.units import Unit
from tests.invariants import assert_hold

F = TypeVar("F")
S = TypeVar("S")
_WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted"
AT = datetime(2026, 11, 25, 12, tzinfo=UTC)


def chain(count: int = 2, uuid: str = "etl") -> Pipeline:
    """A pipeline of blocks a, b, c … one after the other."""
    names = "abcdefgh"[:count]
    blocks = tuple(
        Block(name, BlockType.CUSTOM, f"custom/{name}.py", upstream=tuple(names[i - 1 : i] if i else ()))
        for i, name in enumerate(names)
    )
    return Pipeline(uuid, blocks)


def node_row(name: str | None = None) -> NodeRow:
    now = clock.now()
    return NodeRow(
        id=name or str(uuid.uuid4()),
        host_id="host",
        pid=1,
        pid_started=1,
        version="0",
        state=NodeState.LIVE,
        started_at=now,
        lease_until=now + timedelta(seconds=60),
    )


@pytest.fixture(params=["direct", "pooled"])
def told_pid(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a connection is told of its process: the truth or, as PgBouncer does, a number that is none."""
    if request.param == "pooled":
        monkeypatch.setattr(asyncpg.Connection, "get_server_pid", lambda _: 1)


@dataclass
class Bench:
    """A database with a node `me`, and short ways to make and move runs."""

    db: Database
    me: str
    run_ids: Ids = field(init=False)
    block_ids: Ids = field(init=False)

    def __post_init__(self) -> None:
        self.run_ids, self.block_ids = Ids(self.db, "run"), Ids(self.db, "block")

    async def node(self, name: str | None = None) -> str:
        row = node_row(name)
        await self.db.write(nodes.register, row)
        return row.id

    async def new(self, pipeline: Pipeline | None = None, first: bool = False, **values: Any) -> NewRun:
        pipeline = pipeline or chain()
        (run_id,) = await self.run_ids.take()
        ids = await self.block_ids.take(len(pipeline.blocks))
        blocks = tuple(
            NewBlock(i, b.uuid, b.retry.retries + 1) for i, b in zip(ids, pipeline.blocks, strict=True)
        )
        given = {
            "pipeline_uuid": pipeline.uuid,
            "pipeline_hash": pipeline.hash,
            "cause": Cause.API,
            "execution_date": AT,
            **values,
        }
        return NewRun(
            id=run_id,
            values=given,
            definition=pipeline.definition,
            blocks=blocks,
            first=(blocks[0].id,) if first else (),
        )

    def claimer(self, free: int = 10, node: str | None = None) -> Claimer:
        return Claimer(node or self.me, free, admissible)

    async def launch(
        self, *runs: NewRun, claim: bool = True, free: int = 10, node: str | None = None
    ) -> list[launch.Launched]:
        claimer = self.claimer(free, node) if claim else None
        return await self.db.write(launch.launch, runs, claimer, now=clock.now())

    async def running(self, pipeline: Pipeline | None = None, **values: Any) -> tuple[RunRow, NewRun]:
        """A run of this node whose first block has started."""
        new = await self.new(pipeline, first=True, **values)
        (made,) = await self.launch(new)
        return made.run, new

    async def flush(self, *units: Unit, node: str | None = None) -> Sequence[Any]:
        backend = backend_for(self.db, node or self.me)
        await backend.open()
        try:
            return await backend.flush(units)
        finally:
            await backend.close()

    async def cross(self, first: Callable[[Tx], F], second: Callable[[Tx], S]) -> tuple[F, S, bool]:
        """What two transactions come to, and whether the second waited for the first.

        On Postgres the first, when it has done all, stays open until the second has ended or waits for it.
        """
        done, ended = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def held(tx: Tx) -> tuple[F, bool]:
            found = first(tx)
            loop.call_soon_threadsafe(done.set)
            if tx.dialect.name == "postgresql":
                while not ended.is_set() and not tx.execute(text(_WAITING)).scalar_one():
                    tx.execute(text("SELECT pg_sleep(0.01)"))
            return found, not ended.is_set()

        one = asyncio.ensure_future(self.db.write(held))
        await done.wait()
        two = await self.db.write(second)
        ended.set()
        found, waited = await one
        return found, two, waited


@pytest.fixture
async def bench(database_url: str) -> AsyncIterator[Bench]:
    """Both databases, one after the other; the invariants are checked at the end."""
    db = open_database(database_url)
    await db.open()
    found = Bench(db, "")
    found.me = await found.node()
    yield found
    await assert_hold(db)
    await db.close()
