"""Scenario: many processes race for the same slots of many triggers on one database.

Run as a program it is the racers: one process that has everything imported and forks. Each is a node with an
engine of its own; for every slot they are all told the same time at once, and tick. One write in ten is rolled
back, and some racers dawdle between reading what is due and deciding it.
"""

import asyncio
import json
import multiprocessing
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

from tests.soak import checks, project

ROLLED_BACK = 0.1
DAWDLES = 0.3


@dataclass
class Ticks:
    """`racers` processes, `triggers` hourly triggers, `slots` hours."""

    folder: Path
    database: str
    seed: int
    racers: int = 8
    triggers: int = 10
    slots: int = 100
    say: Callable[[str], None] = print
    #: writes that were rolled back, and how many slots each process has decided
    rolled_back: int = 0
    shares: list[int] = field(default_factory=list)

    def run(self) -> list[str]:
        """Everything that was wrong."""
        wanted = self.triggers * self.slots
        self.say(
            f"{self.racers} processes race for {wanted} slots: {self.triggers} triggers, {self.slots} times"
        )
        made = write_project(self.folder / "project", self.triggers)
        asked = [made, self.database, self.seed, self.racers, self.slots]
        done = subprocess.run(
            [sys.executable, "-m", "tests.soak.ticks", *map(str, asked)],
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        if done.returncode:
            self.say(f"!! the racers ended with {done.returncode}:\n{done.stderr[-4000:]}")
            return ["the racers have ended"]
        self.rolled_back = json.loads(done.stdout)["rolled_back"]
        self.say(f"rolled back: {self.rolled_back}")
        return self._judge(wanted)

    def _judge(self, wanted: int) -> list[str]:
        found = checks.look(self.database, _ledger)
        self.shares = found["shares"]
        self.say(f"slots {found['slots']}, runs {found['runs']}; decided by each process: {self.shares}")
        wrong = checks.invariants_of(self.database)
        if (found["slots"], found["runs"]) != ({"run": wanted}, wanted):
            wrong.append(f"slots {found['slots']} and {found['runs']} runs instead of {wanted}")
        for what in wrong:
            self.say(f"!! {what}")
        return wrong


def write_project(folder: Path, triggers: int) -> Path:
    """One pipeline with many hourly triggers."""
    entries = "".join(
        f"- {{name: t{n}, schedule_type: time, schedule_interval: '@hourly', status: active}}\n"
        for n in range(triggers)
    )
    files = {
        "metadata.yaml": "name: ticks\n",
        "custom/nothing.py": "@custom\ndef nothing(*args, **kwargs): return 1\n",
        "pipelines/hourly/metadata.yaml": "blocks:\n- {uuid: nothing, type: custom, upstream_blocks: []}\n",
        "pipelines/hourly/triggers.yaml": f"triggers:\n{entries}",
    }
    return project.write(folder, files)


def _ledger(tx: Connection) -> dict[str, Any]:
    slots = tx.execute(text("SELECT outcome, sum(slot_count) FROM schedule_slot GROUP BY 1"))
    runs = tx.execute(text("SELECT count(*) FROM pipeline_run WHERE cause = 'tick'")).scalar_one()
    shares = tx.execute(text("SELECT count(*) FROM schedule_slot GROUP BY decided_by ORDER BY 1"))
    return {"slots": {o: int(n) for o, n in slots}, "runs": runs, "shares": list(shares.scalars())}


class Racer:
    """One node that only ticks: what it makes waits."""

    def __init__(self, made: Path, database: str, seed: str, pipe: Pipe) -> None:
        self._made, self._database, self._pipe = made, database, pipe
        self._random = random.Random(seed)
        self.rolled_back = 0

    async def race(self) -> None:
        from app import clock
        from app.errors import StoreUnavailable
        from app.scheduler.engine import running

        engine = self._engine()
        async with running(engine, drain_s=0):
            engine.intake.open = False
            await engine.passes.sync(force=True)
            engine.db.write = self._unsteady(engine.db.write)  # type: ignore[method-assign]
            self._pipe.send("ready")
            while (now := await asyncio.to_thread(self._pipe.recv)) is not None:
                clock.use(lambda now=now: now)
                while True:
                    try:
                        await engine.passes.tick()
                        break
                    except StoreUnavailable:
                        continue
                self._pipe.send(self.rolled_back)
            clock.use(None)

    def _engine(self) -> Any:
        from app.scheduler.build import build_engine
        from app.settings import Settings

        home = self._made / ".runwright"
        settings = Settings(project=self._made, home=home, database_url=self._database, warm_workers=0)
        return build_engine(settings, scheduling=False)

    def _unsteady(self, write: Callable[..., Any]) -> Callable[..., Any]:
        from app.errors import StoreUnavailable

        def and_back(tx: Connection, fn: Callable[..., Any], args: Any, kwargs: Any) -> None:
            fn(tx, *args, **kwargs)
            self.rolled_back += 1
            raise StoreUnavailable("this one is rolled back")

        async def wrapped(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            if self._random.random() < DAWDLES:
                await asyncio.sleep(self._random.uniform(0, 0.05))
            if self._random.random() < ROLLED_BACK:
                return await write(and_back, fn, args, kwargs)
            return await write(fn, *args, **kwargs)

        return wrapped


def _race(made: Path, database: str, seed: str, pipe: Pipe) -> None:
    asyncio.run(Racer(made, database, seed, pipe).race())


def race(made: Path, database: str, seed: int, racers: int, slots: int) -> dict[str, Any]:
    """Let them race; what they tell."""
    from app.store.migrate import upgrade

    upgrade(database)
    fork = multiprocessing.get_context("fork")
    pipes = []
    for number in range(racers):
        ours, theirs = fork.Pipe()
        fork.Process(target=_race, args=(made, database, f"{seed}.{number}", theirs), daemon=True).start()
        theirs.close()
        pipes.append(ours)
    assert [pipe.recv() for pipe in pipes] == ["ready"] * racers
    hour = datetime.now(UTC).replace(minute=0, second=1, microsecond=0)
    told: Counter[int] = Counter()
    for slot in range(1, slots + 1):
        for pipe in pipes:
            pipe.send(hour + timedelta(hours=slot))
        told = Counter({n: pipe.recv() for n, pipe in enumerate(pipes)})
    for pipe in pipes:
        pipe.send(None)
    for child in multiprocessing.active_children():
        child.join(20)
    return {"rolled_back": told.total()}


if __name__ == "__main__":
    _made, _database, _seed, _racers, _slots = sys.argv[1:]
    print(json.dumps(race(Path(_made), _database, int(_seed), int(_racers), int(_slots))))
