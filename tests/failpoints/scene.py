"""A project, a client and a ledger of effects that go through the lives of an engine which is killed at a place.

The engine lives in this process and is killed by leaving it where it stands: nothing of it reaches the database
from then on, its blocks are cut off, and the next life starts as after a SIGKILL. `test_processes.py` has the
real thing for a few places. In its first life everything is asked for (each request with a key, and again until it
is answered); two runs are still at work when that life stops, and end in the next one.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app import clock, failpoints
from app.errors import LeaseLost, StoreUnavailable
from app.executors.base import BlockCall, BlockResult
from app.models.states import Outcome, RunStatus
from app.scheduler.engine import Engine
from app.scheduler.launch import LaunchRequest
from app.store import idempotency, runs
from app.store.db import Tx
from app.store.idempotency import Idempotency
from app.store.opening import open_database
from app.store.sql import RUN
from tests.engine.conftest import Scripted, World, done, failed
from tests.invariants import find

PATIENCE_S = 40.0
#: key of a request -> the pipeline it launches
REQUESTS = {
    "1": "chain", "2": "hooked", "3": "fan", "4": "flaky", "5": "single", "6": "single", "7": "broken",
    "8": "endless", "9": "gated", "10": "sensing",
}  # fmt: skip
ENDS = {"endless": RunStatus.CANCELLED, "broken": RunStatus.FAILED}
#: these wait for the second life
LATE = ("gated", "sensing")


@dataclass(frozen=True)
class Effect:
    """Something that a block did: `end` is missing of one that was cut off before it had begun to end."""

    life: int
    run: int
    block: str
    block_run: int
    attempt: int
    kind: str


@dataclass
class Scene:
    """One project on one database, from its first life to the verdict."""

    folder: Path
    url: str
    effects: list[Effect] = field(default_factory=list)
    acknowledged: dict[str, int] = field(default_factory=dict)
    #: whether a run may end with `internal_error`: the fault was the engine's own
    excused: bool = False
    life: int = 0
    #: whether the last life did not come up, since the database failed it
    refused: bool = False
    _engine: Engine | None = None

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        (self.folder / "metadata.yaml").write_text("name: scene\n")
        self.world = World(self.folder, self.url)
        self.opened = asyncio.Event()
        self._write_project()

    def _write_project(self) -> None:
        hooks = {"conditionals": {"when": ["b"], "never": ["c"]}, "callbacks": {"tell": ["b"]}}
        top = {}
        for kind, named in hooks.items():
            (self.folder / kind).mkdir()
            for name in named:
                (self.folder / kind / f"{name}.py").write_text("# played by the scene\n")
            top[kind] = [{"uuid": n, "type": kind[:-1], "upstream_blocks": u} for n, u in named.items()]
        make = self.world.pipeline
        make("chain", {"a": [], "b": ["a"], "c": ["b"]})
        make("hooked", {"a": [], "b": ["a"], "c": ["a"], "d": ["b"]}, **top)
        dynamic = {"upstream_blocks": [], "configuration": {"dynamic": True}}
        reduced = {"upstream_blocks": ["src"], "configuration": {"reduce_output": True}}
        make("fan", {"src": dynamic, "each": reduced, "all": ["each"]})
        make("flaky", {"once_more": {"upstream_blocks": [], "retry_config": {"retries": 1, "delay": 0}}})
        make("single", {"s": []}, concurrency_config={"pipeline_run_limit_all_triggers": 1})
        make("broken", {"bad": [], "after": ["bad"]})
        make("endless", {"stays": []})
        make("gated", {"before": [], "gate": ["before"], "after": ["gate"]})
        sensor = {"type": "sensor", "upstream_blocks": [], "configuration": {"interval": 1}}
        make("sensing", {"w": sensor, "after": ["w"]})
        make("once", {"o": []})
        self.world.triggers("once", {"name": "once", "schedule_interval": "@once"})

    # What blocks do

    async def play(self, call: BlockCall) -> BlockResult:
        """Any block, noted in the ledger."""
        name = call.hook.uuid if call.hook else call.block.uuid
        self._note(call, name, "begin")
        result = failed("never heard of")
        try:
            result = await self._act(name, call)
        finally:
            self._note(call, name, "end")
        return result

    def _note(self, call: BlockCall, name: str, kind: str) -> None:
        key = (call.run_id, name, call.block_run_id, call.attempt)
        self.effects.append(Effect(self.life, *key, kind))

    async def _act(self, name: str, call: BlockCall) -> BlockResult:
        if name == "stays":
            await asyncio.Future()
        if name == "gate":
            await self.opened.wait()
        if name == "bad" or (name == "once_more" and call.tries == 1):
            return failed()
        if name == "never":
            return BlockResult(Outcome.COMPLETED, value_false=True)
        if name == "w":
            return BlockResult(Outcome.COMPLETED, value_false=not self.opened.is_set())
        if name == "src":
            items = {"kind": "items", "count": 3, "values": [1, 2, 3], "meta": [], "names": {}, "after": {}}
            return BlockResult(Outcome.COMPLETED, outputs=[items])
        await asyncio.sleep(0.002)
        return done(name)

    # Lives

    async def live(self, rules: str = "") -> failpoints.Failpoints:
        """One life, with these rules; to its end in peace, or its death."""
        self.life += 1
        self.refused = False
        killed = asyncio.Event()
        loop = asyncio.get_running_loop()
        points = failpoints.arm(rules, kill=lambda: loop.call_soon_threadsafe(killed.set) and None)
        self.world.executor = executor = Scripted(size=8)
        executor.plays = _All(self.play)
        former = self._engine
        made = self.world.engine(scheduling=True) if former is None else former.successor()
        engine = self._engine = made
        serving = asyncio.create_task(self._serve(engine))
        dying = asyncio.create_task(killed.wait())
        try:
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.wait((serving, dying), return_when=asyncio.FIRST_COMPLETED)
            if not points.dead:
                await serving
        finally:
            dying.cancel()
            if not serving.done():
                await _leave_where_it_stands(engine, executor, serving)
            failpoints.armed = None
        return points

    async def _serve(self, engine: Engine) -> None:
        async with asyncio.TaskGroup() as group:
            try:
                await engine.start(group)
            except StoreUnavailable:  # no start: the process ends, and the next one comes
                self.refused = True
                await engine.stop(0.0)
                engine.member.ended()
                return
            asked = group.create_task(self._ask(engine))
            nudging = group.create_task(_nudge(engine))
            await asked
            nudging.cancel()
            await engine.stop(0.0)
            engine.member.ended()

    async def _ask(self, engine: Engine) -> None:
        """The client: asks for everything until it is answered, then waits for what can end in this life."""
        if self.life > 1:
            self.opened.set()
        turns = [self._launch(engine, key, name, 0.004 * n) for n, (key, name) in enumerate(REQUESTS.items())]
        await asyncio.gather(*turns)
        expected = {
            run for key, run in self.acknowledged.items() if self.life > 1 or REQUESTS[key] not in LATE
        }
        while (await engine.db.read(_live)) & expected or not await engine.db.read(_once_is_over):
            await asyncio.sleep(0.01)
        if self.life == 1:
            await self._late_ones_wait(engine)

    async def _launch(self, engine: Engine, key: str, pipeline: str, after_s: float) -> None:
        await asyncio.sleep(after_s)  # apart, so that not all of them share one transaction
        asked = Idempotency("POST /scene", key, pipeline)
        if key not in self.acknowledged:
            run = await insist(
                lambda: engine.launch(LaunchRequest(pipeline_uuid=pipeline), idempotency=asked)
            )
            await insist(lambda: engine.db.write(idempotency.remember, asked, 201, "{}", now=clock.now()))
            self.acknowledged[key] = run.id
        if pipeline == "endless":
            while not any(e.block == "stays" for e in self.effects):
                await asyncio.sleep(0.005)
            await insist(lambda: engine.cancel(self.acknowledged[key]))

    async def _late_ones_wait(self, engine: Engine) -> None:
        sensing = next(run for key, run in self.acknowledged.items() if REQUESTS[key] == "sensing")
        while sensing not in engine.fleet.parking or not any(e.block == "gate" for e in self.effects):
            await asyncio.sleep(0.005)

    # The verdict

    async def verdict(self) -> list[str]:
        """All that is wrong in the end; empty is what we want."""
        db = open_database(self.url)
        await db.open()
        try:
            found = await db.read(find)
            by_key = await db.read(_runs_of_keys)
            rows = {run: await db.read(runs.blocks, run) for run in await db.read(_ids)}
            statuses = await db.read(_statuses)
        finally:
            await db.close()
        for key in REQUESTS:
            if by_key.get(key) != self.acknowledged.get(key):
                found.append(
                    f"request {key} was answered {self.acknowledged.get(key)}, has {by_key.get(key)}"
                )
        wanted = Counter(REQUESTS.values()) + Counter(["once"])
        if wanted != Counter(pipeline for pipeline, _, _ in statuses.values()):
            found.append(f"there are {Counter(p for p, _, _ in statuses.values())}, wanted {wanted}")
        for run, (pipeline, status, reason) in statuses.items():
            excused = self.excused and reason == "internal_error"
            if status != ENDS.get(pipeline, RunStatus.COMPLETED) and not excused:
                found.append(f"run {run} of {pipeline} is {status} ({reason})")
        return found + self._effects(rows)

    def _effects(self, rows: dict[int, Any]) -> list[str]:
        """The ledger against the attempts: nothing ran twice or unseen, nothing is completed that did not run."""
        attempts = {(b.id, a.attempt): (b, a) for blocks in rows.values() for b in blocks for a in b.attempts}
        begun: Counter[tuple[int, int]] = Counter()
        busy: dict[tuple[int, int], Effect | None] = defaultdict(lambda: None)
        found = []
        for effect in self.effects:
            key, place = (effect.block_run, effect.attempt), (effect.run, effect.block_run)
            if effect.kind == "end":
                busy[place] = None
                continue
            if busy[place] is not None:
                found.append(f"{effect} overlaps {busy[place]}")
            busy[place] = effect
            begun[key] += 1
            if key not in attempts:
                found.append(f"{effect} is not on record")
            elif begun[key] > 1 and effect.block != "w":
                found.append(f"{effect} ran twice")
        for key, (block, attempt) in attempts.items():
            if attempt.outcome in (Outcome.COMPLETED, Outcome.FAILED) and not begun[key]:
                found.append(
                    f"attempt {attempt.attempt} of {block.block_uuid} is {attempt.outcome}, and never ran"
                )
            if attempt.outcome is None:
                found.append(f"attempt {attempt.attempt} of {block.block_uuid} is still open")
        return found


class _All(dict[str, Any]):
    """Plays of every block: one function."""

    def __init__(self, play: Any) -> None:
        self._play = play

    def get(self, key: str, default: Any = None) -> Any:
        return self._play


async def insist(ask: Callable[[], Awaitable[Any]]) -> Any:
    """What a client does with an answer of 503: it asks again."""
    while True:
        try:
            return await ask()
        except StoreUnavailable:
            await asyncio.sleep(0.02)


async def _nudge(engine: Engine) -> None:
    """The passes for what was lost, more often than the timers ask for them."""
    while True:
        with suppress(StoreUnavailable, LeaseLost):
            await engine.passes.recover()
            await engine.passes.poll()
        await asyncio.sleep(0.1)


async def _leave_where_it_stands(engine: Engine, executor: Scripted, serving: "asyncio.Task[None]") -> None:
    """What a SIGKILL does: blocks are gone with their warden, connections break, nothing is said to anybody."""
    for slot in executor.slots:
        await slot.kill(Outcome.LOST, "killed")
    engine._timers.stop()
    if hasattr(engine, "fleet"):
        engine.fleet.leaving = True  # it begins nothing in a group that is cancelled
    if engine.member._lease is not None:
        await engine.member._lease.stop()
    serving.cancel()
    await asyncio.wait((serving,), timeout=5)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:  # type: ignore[arg-type]
        if not task.done() and task.get_name().startswith(("run ", "resume ")):
            task.cancel()
    await getattr(engine.db, "inner", engine.db).close()
    engine.member.ended()


def _live(tx: Tx) -> set[int]:
    return {row.id for row in tx.execute(RUN.select().where(RUN.c.completed_at.is_(None)))}


def _ids(tx: Tx) -> list[int]:
    return [row.id for row in tx.execute(RUN.select())]


def _once_is_over(tx: Tx) -> bool:
    rows = tx.execute(RUN.select().where(RUN.c.pipeline_uuid == "once")).all()
    return bool(rows) and all(row.completed_at is not None for row in rows)


def _statuses(tx: Tx) -> dict[int, tuple[str, RunStatus, str | None]]:
    return {
        row.id: (row.pipeline_uuid, RunStatus(row.status), row.status_reason)
        for row in tx.execute(RUN.select())
    }


def _runs_of_keys(tx: Tx) -> dict[str, int]:
    from app.store.sql import IDEMPOTENCY

    return {row.key: row.effect_id for row in tx.execute(IDEMPOTENCY.select())}
