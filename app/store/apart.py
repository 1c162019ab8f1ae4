"""One transaction apart from any service, for tools: no pool, no queue, and no time-out on a long look."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection, create_engine, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from app.store.sqlite import unavailable

T = TypeVar("T")


def run(url: str, fn: Callable[[Connection], T], *, write: bool = False) -> T:
    """Call `fn` with a transaction of its own; it is committed when `fn` returns. Not from within a loop.

    Raises StoreUnavailable when the database cannot be used.
    """
    if make_url(url).get_backend_name() == "sqlite":
        return _on_sqlite(url, fn, "BEGIN IMMEDIATE" if write else "BEGIN")
    return asyncio.run(_on_postgres(url, fn, write))


def _on_sqlite(url: str, fn: Callable[[Connection], T], begin: str) -> T:
    """The transaction is ours: the driver's would end at the first CREATE TABLE."""
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as tx:
            tx.exec_driver_sql(begin)
            try:
                result = fn(tx)
            except BaseException:
                tx.exec_driver_sql("ROLLBACK")
                raise
            tx.exec_driver_sql("COMMIT")
            return result
    except (DBAPIError, UnicodeDecodeError) as error:  # the latter: a damaged schema
        raise unavailable(error) from error
    finally:
        engine.dispose()


async def _on_postgres(url: str, fn: Callable[[Connection], T], write: bool) -> T:
    from app.store.connecting import AWAY, away, engine_on, first_connection, open_patiently, tells_of_server

    engine = engine_on(url, open_patiently, poolclass=NullPool)
    try:
        async with first_connection(engine) as connection:
            await connection.execution_options(postgresql_readonly=not write)
            async with connection.begin():
                return await connection.run_sync(fn)
    except (DBAPIError, *AWAY) as error:
        if tells_of_server(error):
            raise away(error) from error
        raise
    finally:
        await engine.dispose()
