"""One door to the database, whichever it is: `write`, `read`, and who may serve it."""

from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import orjson
from sqlalchemy import Connection, make_url
from sqlalchemy.exc import IntegrityError

#: A constraint refused a write: somebody else was faster, or the caller is wrong.
Clash = IntegrityError
#: A transaction, as a store function gets it. Those above the store may pass it on, and no more.
Tx = Connection
#: Whether this task serves a caller from outside. On Postgres such have connections of their own, so that however
#: many they are, the engine has its.
outside: ContextVar[bool] = ContextVar("outside", default=False)
P = ParamSpec("P")
T = TypeVar("T")


class Database(Protocol):
    """A database that store functions run on; `sqlite.py` and `postgres.py` implement it."""

    #: "sqlite" or "postgresql"
    dialect: str
    #: whether other services may use it at the same time: then only a lease tells who lives
    shared: bool
    url: str

    async def open(self) -> None:
        """Connect. Raises StartRefused when this process may not serve it, StoreUnavailable when it is away."""
        ...

    async def write(
        self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `fn` in a transaction that is on disk when this returns; an exception rolls all of it back.

        Raises StoreUnavailable when nothing was changed, its child OutcomeUnknown when nobody can tell.
        """
        ...

    async def read(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `fn` on one consistent snapshot; it cannot write."""
        ...

    async def close(self) -> None:
        """Finish what is queued and let go of every connection."""
        ...


def is_there(url: str) -> bool:
    """Whether a database may be looked for: a SQLite file that exists, or any server."""
    parts = make_url(url)
    return parts.get_backend_name() != "sqlite" or Path(parts.database or "").is_file()


def dumps(value: Any) -> str:
    """JSON text for a JSON column: compact, strict, keys as they are."""
    return orjson.dumps(value).decode()


def loads(text: str | bytes) -> Any:
    """The value of a JSON text."""
    return orjson.loads(text)


def bound(fn: Callable[..., T], args: Any, kwargs: Any) -> Callable[[Connection], T]:
    """A store function with everything but its transaction given."""
    return lambda tx: fn(tx, *args, **kwargs)
