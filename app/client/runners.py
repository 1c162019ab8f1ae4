"""The two runners: they do what flows ask, one with `httpx.Client`, one with `httpx.AsyncClient`.

Nothing about the API is told here; the two differ in `await` alone.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import aclosing, closing
from functools import partial
from typing import Self, TypeVar

import httpx

from app.client.flow import Ask, Chunk, Emit, Flow, Pause, Request, Stream, returning

T = TypeVar("T")
_CONNECT_S = 5.0


def _http_request(http: httpx.Client | httpx.AsyncClient, ask: Request) -> httpx.Request:
    return http.build_request(
        ask.method,
        ask.path,
        params=dict(ask.params),
        json=ask.body,
        headers=dict(ask.headers),
        timeout=httpx.Timeout(ask.read_s, connect=_CONNECT_S),
    )


class Runner:
    """Runs flows in the caller's thread. Use it in one thread at a time."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up the connections."""
        self._http.close()

    def perform(self, flow: Flow[T]) -> T:
        """Run a flow; what it returns."""
        with closing(self._values(returning(flow))) as values:
            return next(values)

    def iterate(self, flow: Stream[T]) -> Iterator[T]:
        """Run a flow as far as its values are taken."""
        return self._values(flow)

    def _values(self, flow: Stream[T]) -> Generator[T, None, None]:
        resume: Callable[[], Ask | Emit[T]] = partial(next, flow)
        with closing(flow), closing(_Wire(self._http)) as wire:
            while True:
                try:
                    ask = resume()
                except StopIteration:
                    return
                if isinstance(ask, Emit):
                    yield ask.value
                    resume = partial(flow.send, None)
                    continue
                try:
                    resume = partial(flow.send, wire.do(ask))
                except httpx.TransportError as error:
                    resume = partial(flow.throw, error)


class _Wire:
    """One flow's I/O; it has one stream open at most."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self._response: httpx.Response | None = None
        self._chunks: Iterator[bytes] = iter(())

    def do(self, ask: Ask) -> object:
        """The answer to what a flow asks. Raises httpx.TransportError."""
        match ask:
            case Pause():
                time.sleep(ask.seconds)
                return None
            case Chunk():
                return next(self._chunks, None)
            case Request():
                return self._send(ask)

    def _send(self, ask: Request) -> httpx.Response:
        self.close()
        response = self._http.send(_http_request(self._http, ask), stream=ask.stream)
        if ask.stream:
            self._response, self._chunks = response, response.iter_bytes()
            if not response.is_success:
                response.read()
        return response

    def close(self) -> None:
        """End the open stream."""
        if self._response is not None:
            self._response.close()


class AsyncRunner:
    """Runs flows on the caller's event loop."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Give up the connections."""
        await self._http.aclose()

    async def perform(self, flow: Flow[T]) -> T:
        """Run a flow; what it returns."""
        async with aclosing(self._values(returning(flow))) as values:
            return await anext(values)

    def iterate(self, flow: Stream[T]) -> AsyncIterator[T]:
        """Run a flow as far as its values are taken."""
        return self._values(flow)

    async def _values(self, flow: Stream[T]) -> AsyncGenerator[T, None]:
        resume: Callable[[], Ask | Emit[T]] = partial(next, flow)
        with closing(flow):
            async with aclosing(_AsyncWire(self._http)) as wire:
                while True:
                    try:
                        ask = resume()
                    except StopIteration:
                        return
                    if isinstance(ask, Emit):
                        yield ask.value
                        resume = partial(flow.send, None)
                        continue
                    try:
                        resume = partial(flow.send, await wire.do(ask))
                    except httpx.TransportError as error:
                        resume = partial(flow.throw, error)


class _AsyncWire:
    """One flow's I/O; it has one stream open at most."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self._response: httpx.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None

    async def do(self, ask: Ask) -> object:
        """The answer to what a flow asks. Raises httpx.TransportError."""
        match ask:
            case Pause():
                await asyncio.sleep(ask.seconds)
                return None
            case Chunk():
                return await anext(self._chunks, None) if self._chunks is not None else None
            case Request():
                return await self._send(ask)

    async def _send(self, ask: Request) -> httpx.Response:
        await self.aclose()
        response = await self._http.send(_http_request(self._http, ask), stream=ask.stream)
        if ask.stream:
            self._response, self._chunks = response, response.aiter_bytes()
            if not response.is_success:
                await response.aread()
        return response

    async def aclose(self) -> None:
        """End the open stream."""
        if self._response is not None:
            await self._response.aclose()
