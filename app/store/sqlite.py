"""SQLite: one process, one writing connection on a thread of its own, a few read-only ones.

Whatever has gathered in the queue becomes one transaction with a savepoint a unit and one commit, so that
writers share the fsync. BEGIN IMMEDIATE from the start: a deferred transaction that turns into a writer dies
with "database is locked" whatever the timeout.
"""

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Any, Concatenate

import orjson
from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DatabaseError, DBAPIError, OperationalError

from app.errors import StoreUnavailable
from app.store.db import P, T, bound, dumps
from app.store.sqlite_file import Whereabouts, require_sound
from app.store.sqlite_file import take_lock as take_lock

log = logging.getLogger(__name__)

#: Units that share one commit at most: bounds how long the first of them waits.
MAX_UNITS = 500
READERS = 4
#: How long a lock of another program is waited for.
BUSY_MS = 5000
_PRAGMAS = (
    "PRAGMA foreign_keys=ON",
    "PRAGMA cache_size=-16000",
    "PRAGMA temp_store=MEMORY",
)


class _Unit:
    """One `write` call on its way through the writer thread."""

    __slots__ = ("error", "fn", "future", "result")

    def __init__(self, fn: Callable[[Connection], Any], future: asyncio.Future[Any]) -> None:
        self.fn = fn
        self.future = future
        self.result: Any = None
        self.error: BaseException | None = None


class SqliteDatabase:
    """The embedded database."""

    dialect = "sqlite"
    shared = False

    def __init__(self, url: str, *, exclusive: bool = True) -> None:
        self.url = url
        self._exclusive = exclusive
        self._path = Path(make_url(url).database or "")
        self._queue: queue.SimpleQueue[_Unit | None] = queue.SimpleQueue()
        self._lock: IO[bytes] | None = None
        self._writer: threading.Thread | None = None
        self._readers: ThreadPoolExecutor | None = None
        self._read_engine: Engine | None = None
        self._write_engine: Engine | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._whereabouts: Whereabouts | None = None
        #: why the last transaction was not written; None once one was
        self.trouble: str | None = None

    async def open(self) -> None:
        """Take the file's lock, look through the file, start the writer. Raises StartRefused, StoreUnavailable."""
        self._loop = asyncio.get_running_loop()
        self._read_engine = _engine(self.url, "PRAGMA query_only=ON")
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="sqlite-read")
        if not self._exclusive:
            return
        self._lock = take_lock(self._path)
        await asyncio.to_thread(require_sound, self._path)
        self._write_engine = _engine(self.url, "PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL")
        await asyncio.to_thread(_prove, self._write_engine)
        self._whereabouts = Whereabouts(self._path)
        self._writer = threading.Thread(target=self._write_loop, name="sqlite-write", daemon=True)
        self._writer.start()

    async def write(
        self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Queue `fn` for the writer; returns when its transaction is committed."""
        if self._loop is None or self._writer is None:
            raise StoreUnavailable("the database is not open for writing")
        unit = _Unit(bound(fn, args, kwargs), self._loop.create_future())
        self._queue.put(unit)
        # Shielded: a caller that is cancelled must not make the writer's answer fall on a cancelled future.
        result: T = await asyncio.shield(unit.future)
        return result

    async def read(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `fn` on a read-only connection."""
        if self._loop is None or self._readers is None:
            raise StoreUnavailable("the database is not open")
        return await self._loop.run_in_executor(self._readers, partial(self._read, bound(fn, args, kwargs)))

    def _read(self, fn: Callable[[Connection], T]) -> T:
        assert self._read_engine is not None
        if self._whereabouts is not None:
            self._whereabouts.require()
        try:
            with self._read_engine.connect() as tx:
                return _snapshot(tx, fn)
        except (DBAPIError, sqlite3.Error, UnicodeDecodeError) as error:
            if not _is_away(error):
                raise
            raise unavailable(error) from error

    def _write_loop(self) -> None:
        assert self._write_engine is not None
        with self._write_engine.connect() as tx:
            while (first := self._queue.get()) is not None:
                units = [first]
                stop = False
                with suppress(queue.Empty):
                    while len(units) < MAX_UNITS:
                        if (unit := self._queue.get_nowait()) is None:
                            stop = True
                            break
                        units.append(unit)
                self._run(tx, units)
                self._answer(units)
                if stop:
                    return

    def _run(self, tx: Connection, units: list[_Unit]) -> None:
        try:
            if self._whereabouts is not None:
                self._whereabouts.require()
            trouble = _run_together(tx, units)
        except StoreUnavailable as error:
            trouble = error
            for unit in units:
                unit.error = error
        detail = None if trouble is None else trouble.detail
        if detail is not None and detail != self.trouble:  # told once, not once a transaction
            log.error("nothing can be written: %s", detail)
        elif detail is None and self.trouble is not None:
            log.info("the database can be written again")
        self.trouble = detail

    def _answer(self, units: list[_Unit]) -> None:
        assert self._loop is not None
        with suppress(RuntimeError):  # the loop is gone: nobody is left to be told
            self._loop.call_soon_threadsafe(_resolve, units)

    async def close(self) -> None:
        """Let the writer finish its queue, then let go of the file."""
        # From here on nobody gets in: behind the end of the queue a write would wait for ever.
        writer, self._writer = self._writer, None
        readers, self._readers = self._readers, None
        if writer is not None:
            self._queue.put(None)
            await asyncio.to_thread(writer.join)
        if readers is not None:
            await asyncio.to_thread(readers.shutdown)
        for engine in (self._read_engine, self._write_engine):
            if engine is not None:
                engine.dispose()
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def _engine(url: str, *pragmas: str) -> Engine:
    engine = create_engine(
        url,
        isolation_level="AUTOCOMMIT",  # BEGIN and COMMIT are ours to say
        json_serializer=dumps,
        json_deserializer=orjson.loads,
        pool_size=READERS,
        max_overflow=0,
        connect_args={"cached_statements": 256, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def configure(raw: sqlite3.Connection, _record: Any) -> None:
        for pragma in (f"PRAGMA busy_timeout={BUSY_MS}", *_PRAGMAS, *pragmas):
            raw.execute(pragma)

    return engine


def _prove(engine: Engine) -> None:
    """Look into the file once, so that one which is damaged or no database is refused at the start."""
    try:
        with engine.connect() as tx:
            tx.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar()
    except (DBAPIError, UnicodeDecodeError) as error:
        raise unavailable(error) from error


def _raw(tx: Connection) -> sqlite3.Connection:
    return tx.connection.driver_connection  # type: ignore[return-value]


def _snapshot(tx: Connection, fn: Callable[[Connection], T]) -> T:
    raw = _raw(tx)
    raw.execute("BEGIN")
    try:
        return fn(tx)
    finally:
        if raw.in_transaction:
            raw.execute("COMMIT")


def _run_together(tx: Connection, units: list[_Unit]) -> StoreUnavailable | None:
    """All units in one transaction; a unit that raises undoes only itself. What kept it from the disk, if anything."""
    raw = _raw(tx)
    trouble = None
    try:
        raw.execute("BEGIN IMMEDIATE")
        for unit in units:
            _run_one(tx, raw, unit)
        raw.execute("COMMIT")
    except (sqlite3.Error, DBAPIError) as error:
        # Nothing of this batch is on disk; say so to every unit, also to those that ran well.
        trouble = unavailable(error)
        for unit in units:
            unit.error = unit.error or trouble
    finally:
        if raw.in_transaction:
            raw.execute("ROLLBACK")
    return trouble


def _run_one(tx: Connection, raw: sqlite3.Connection, unit: _Unit) -> None:
    raw.execute("SAVEPOINT unit")
    try:
        unit.result = unit.fn(tx)
    except Exception as error:  # handed to the caller whose unit it is; the writer must live on
        unit.error = unavailable(error) if _is_away(error) else error
        raw.execute("ROLLBACK TO unit")
    finally:
        raw.execute("RELEASE unit")


def _is_away(error: Exception) -> bool:
    """Whether the file cannot be read or written now, be it told by SQLAlchemy or (the journal) by the driver.

    A damaged file is the bare DatabaseError, the base of those that blame the statement, or text that is none.
    """
    damaged = type(error) in (DatabaseError, sqlite3.DatabaseError, UnicodeDecodeError)
    return damaged or isinstance(error, OperationalError | sqlite3.OperationalError)


def _resolve(units: list[_Unit]) -> None:
    for unit in units:
        if unit.future.done():
            continue
        if unit.error is not None:
            unit.future.set_exception(unit.error)
        else:
            unit.future.set_result(unit.result)


def unavailable(error: Exception) -> StoreUnavailable:
    """The error for callers when SQLite cannot be read or written (locked, full, read-only, damaged)."""
    cause = str(getattr(error, "orig", None) or error)
    return StoreUnavailable(f"SQLite: {cause}", hint="nothing was changed; try again when the cause is gone")
