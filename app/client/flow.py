"""How a method is told once for both clients.

A method of the API is a generator, a `Flow`: it yields what it asks of the world (`Ask`), is sent the answer, and
has no I/O of its own. `call` and `stream` make methods of flows; a runner (`runners.py`) does what they ask.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from functools import wraps
from types import MethodType
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar, overload

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """Ask for a path below `/api/v1`; answered by the `httpx.Response`, or by an `httpx.TransportError`."""

    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    read_s: float = 30.0
    #: leave the body of a good answer for `Chunk`
    stream: bool = False
    #: the effect is the same when it is sent twice
    repeatable: bool = True


@dataclass(frozen=True, slots=True)
class Chunk:
    """Ask for the next bytes of the open stream; answered by None at its end, or by an `httpx.TransportError`."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Ask for some time to go by."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Emit(Generic[T]):
    """Give a value to the caller."""

    value: T


Ask = Request | Chunk | Pause
#: returns a value
Flow = Generator[Ask, Any, T]
#: emits values
Stream = Generator[Ask | Emit[T], Any, None]


def returning(flow: Flow[T]) -> Stream[T]:
    """The same flow, its return value emitted: runners know streams only."""
    value = yield from flow
    yield Emit(value)


class Blocking(Protocol):
    """Runs flows in the caller's thread."""

    def perform(self, flow: Flow[T]) -> T:
        """The flow's return value."""
        ...

    def iterate(self, flow: Stream[T]) -> Iterator[T]:
        """The values that the flow emits."""
        ...


class Awaiting(Protocol):
    """Runs flows on the caller's event loop."""

    async def perform(self, flow: Flow[T]) -> T:
        """The flow's return value."""
        ...

    def iterate(self, flow: Stream[T]) -> AsyncIterator[T]:
        """The values that the flow emits."""
        ...


class call(Generic[P, T]):  # a decorator: lower case like property
    """A method that returns what its flow returns: at once in a blocking client, awaited in the other."""

    def __init__(self, flow: Callable[Concatenate[Any, P], Flow[T]]) -> None:
        self.flow = flow
        self.__doc__ = flow.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: Blocking, owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: Awaiting, owner: type) -> Callable[P, Awaitable[T]]: ...

    def __get__(self, client: Any, owner: type) -> Any:
        """The method bound to a client; the descriptor itself on the class."""
        return self if client is None else _bound(self.flow, client, client.perform)


class stream(Generic[P, T]):
    """A method that gives an iterator of what its flow emits, of type `T`."""

    def __init__(self, flow: Callable[Concatenate[Any, P], Stream[T]]) -> None:
        self.flow = flow
        self.__doc__ = flow.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: Blocking, owner: type) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(self, client: Awaiting, owner: type) -> Callable[P, AsyncIterator[T]]: ...

    def __get__(self, client: Any, owner: type) -> Any:
        """The method bound to a client; the descriptor itself on the class."""
        return self if client is None else _bound(self.flow, client, client.iterate)


def _bound(flow: Callable[..., Any], client: object, run: Callable[[Any], Any]) -> Callable[..., Any]:
    """`flow` as a method of `client`, with its name, signature and documentation."""
    method = MethodType(flow, client)

    @wraps(method)
    def bound(*args: Any, **kwargs: Any) -> Any:
        return run(method(*args, **kwargs))

    return bound
