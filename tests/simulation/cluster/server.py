"""The database server of a simulation: one SQLite in memory that many nodes share, each over a bad line.

A transaction runs whole and alone. What a server such as Postgres adds is done here: its own clock, numbers of
flushes in `node_journal`, answers that get lost at the commit. What it does inside a transaction, its locks and
snapshots, is not simulated: the suite and the soak have a real one.
"""

import asyncio
import random
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Concatenate, Final

import orjson
from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import StaticPool

from app.errors import OutcomeUnknown, StoreUnavailable
from app.store.db import P, T, bound, dumps
from tests.simulation.cluster.loop import PROCESS, SimulatedLoop

#: Seconds that a transaction takes there and back, as a rule; of a server near by, and of one so much further away.
QUICK: Final = (0.001, 0.02)
DISTANCES: Final = (1, 1, 6, 15)
#: and when it takes longer
SLOW: Final = (0.1, 1.5)
HANGS: Final = (2.0, 6.0)


class Store:
    """The rows. One for all seeds of a process, since what SQLAlchemy has compiled is kept with it."""

    def __init__(self, template: str) -> None:
        self._template = sqlite3.connect(template)
        self._raw = sqlite3.connect(":memory:", check_same_thread=False)
        engine = create_engine(
            "sqlite://",
            creator=lambda: self._raw,
            poolclass=StaticPool,
            isolation_level="AUTOCOMMIT",
            json_serializer=dumps,
            json_deserializer=orjson.loads,
        )
        self.tx: Connection = engine.connect()

    def clear(self) -> None:
        """Begin with a migrated database without rows."""
        self._template.backup(self._raw)
        self._raw.execute("PRAGMA foreign_keys=ON")
        self.tx.info.clear()

    def run(self, fn: Callable[[Connection], T], *, readonly: bool = True) -> T:
        """One transaction; an exception rolls it back."""
        before = self._raw.total_changes
        self._raw.execute("BEGIN")
        try:
            result = fn(self.tx)
            assert not readonly or self._raw.total_changes == before, f"{fn} writes, and was to read"
        except BaseException:
            self._raw.execute("ROLLBACK")
            raise
        self._raw.execute("COMMIT")
        return result

    def ask(self, query: str, **values: Any) -> list[Any]:
        """Rows as they are committed now, past everything that costs time."""
        return self._raw.execute(query, values).fetchall()


@dataclass(slots=True)
class Trouble:
    """How likely what is per statement; all of it ends with the faults."""

    refused: float = 0.01
    #: written, and the answer is lost
    in_doubt: float = 0.01
    slow: float = 0.03
    hangs: float = 0.003
    #: until when nobody, or a process of its own, gets through
    away_until: float = 0.0
    cut_off: dict[Any, float] = field(default_factory=dict)

    def end(self) -> None:
        """From here on all is well."""
        self.refused = self.in_doubt = self.slow = self.hangs = self.away_until = 0.0
        self.cut_off.clear()


class Server:
    """Takes requests of processes, does them in the order they come in, and answers, or not."""

    def __init__(
        self, store: Store, loop: SimulatedLoop, dice: random.Random, note: Callable[[str], None]
    ) -> None:
        self.store, self.trouble = store, Trouble()
        self._loop, self._dice, self._note = loop, dice, note
        self.in_doubt = 0
        self._distance = dice.choice(DISTANCES)

    async def ask(self, fn: Callable[[Connection], T], name: str, *, readonly: bool) -> T:
        """What a transaction returns. Raises StoreUnavailable, OutcomeUnknown, and what `fn` raises."""
        process = PROCESS.get()
        if process is not None and process.dead:
            raise asyncio.CancelledError
        answer: asyncio.Future[T] = self._loop.create_future()
        if self._is_away(process):
            wait = self._quick() if self._dice.random() < 0.7 else self._dice.uniform(*SLOW)
            self._loop.outside(wait, _fail, answer, StoreUnavailable("simulated: no connection"))
            return await answer
        trouble, dice = self.trouble, self._dice
        wait = self._quick()
        luck = dice.random()
        if luck < trouble.refused:
            self._loop.outside(wait, _fail, answer, StoreUnavailable("simulated: refused"))
            return await answer
        luck -= trouble.refused
        in_doubt = luck < trouble.in_doubt + trouble.hangs and not readonly
        self.in_doubt += in_doubt
        wait = dice.uniform(*HANGS) if luck < trouble.hangs else wait
        wait = dice.uniform(*SLOW) if dice.random() < trouble.slow else wait
        done = not in_doubt or dice.random() < 0.7
        self._loop.outside(wait, self._do, answer, fn, name, readonly, done, in_doubt, process)
        return await answer

    def _quick(self) -> float:
        return self._distance * self._dice.uniform(*QUICK)

    def _is_away(self, process: Any) -> bool:
        until = max(self.trouble.away_until, self.trouble.cut_off.get(process, 0.0))
        return self._loop.time() < until

    def _do(
        self,
        answer: asyncio.Future[T],
        fn: Callable[[Connection], T],
        name: str,
        readonly: bool,
        done: bool,
        in_doubt: bool,
        process: Any,
    ) -> None:
        """One request at the server; whoever asked may be gone, paused or dead by now."""
        if answer.cancelled() and self._dice.random() < 0.5:
            return  # the server has seen that nobody waits
        error: Exception | None = None
        result: T | None = None
        if done:
            try:
                result = self.store.run(fn, readonly=readonly)
            except Exception as raised:  # the caller's, as it would be over a line
                error = raised
        if not readonly:
            said = "in doubt, " * in_doubt + (
                "written" if done and error is None else f"not written: {error!r}"
            )
            self._note(f"{process or 'outside'}: {name} {said}")
        if in_doubt and not isinstance(error, AssertionError):
            error = OutcomeUnknown("simulated: the answer was lost")
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)  # type: ignore[arg-type]


def _fail(answer: asyncio.Future[Any], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)


class SharedDatabase:
    """One node's door to the server: `app.store.db.Database`, with SQLite's words and Postgres's promises."""

    dialect = "sqlite"
    shared = True

    def __init__(self, server: Server, url: str) -> None:
        self.server, self.url = server, url

    async def open(self) -> None:
        """Prove that the server answers."""
        await self.server.ask(lambda tx: None, "open", readonly=True)

    async def write(
        self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """See `Database.write`."""
        return await self.server.ask(bound(fn, args, kwargs), name_of(fn), readonly=False)

    async def read(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """See `Database.read`."""
        return await self.server.ask(bound(fn, args, kwargs), name_of(fn), readonly=True)

    async def close(self) -> None:
        """Nothing is kept."""


def name_of(fn: Callable[..., Any]) -> str:
    """What a store function is called in a trace."""
    return f"{fn.__module__.rpartition('.')[2]}.{getattr(fn, '__name__', '?')}"
