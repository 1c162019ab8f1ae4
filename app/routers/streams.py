"""Server-sent events: a run's log or its events as they come, resumed by `Last-Event-ID`.

A stream reads rows, never memory: the bus only says that there may be more, so nothing is lost between two
services or over a restart, and nothing comes twice. It ends with `end` when the run is over and everything was
sent; when the service stops it ends with `retry:` instead, and the client comes again.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

import orjson
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import StreamingResponse

from app import clock
from app.errors import RunwrightError, StoreUnavailable
from app.models.states import RUN_TERMINAL
from app.scheduler.engine import Engine
from app.store import runs

#: Streams that one service carries at most.
MAX_STREAMS: Final = 500
#: How often a stream looks without being told: for runs that another node drives.
LOOK_S: Final = 1.0
#: How often it looks at a run of this node, whose every change is told.
OWN_LOOK_S: Final = 10.0
PAGE: Final = 500


def or_page(page: Any) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI says of a route that answers a page, or a stream where it is asked for one."""
    return {200: {"model": page, "content": {"text/event-stream": {}}}}


class TooManyStreams(RunwrightError):
    """Every stream this service carries is taken."""

    code, status, title = "too_many_streams", 503, "Too many streams"


class Identified(Protocol):
    """A row with an id that a stream can be resumed after."""

    @property
    def id(self) -> Any:
        """Grows within the stream."""
        ...


#: Rows after a position, oldest first.
Fetch = Callable[[Any, int], Awaitable[Sequence[Identified]]]


def wanted(request: Request, follow: bool) -> bool:
    """Whether a caller asks for a stream rather than a page."""
    return follow or "text/event-stream" in request.headers.get("accept", "")


def stream(
    request: Request, engine: Engine, run_id: int, name: str, fetch: Fetch, show: type[BaseModel], after: Any
) -> StreamingResponse:
    """Follow a run; `after` is the last id that the client has. Raises TooManyStreams."""
    state = request.app.state
    if getattr(state, "streams", 0) >= MAX_STREAMS:
        raise TooManyStreams(f"{MAX_STREAMS} streams are open already", hint="close some, or read pages")
    frames = _Follower(engine, run_id, name, fetch, show, after).frames()

    async def counted() -> AsyncIterator[bytes]:
        state.streams = getattr(state, "streams", 0) + 1
        try:
            async for frame in frames:
                yield frame
        finally:
            state.streams -= 1

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(counted(), media_type="text/event-stream", headers=headers)


class _Follower:
    """One client's stream."""

    def __init__(
        self, engine: Engine, run_id: int, name: str, fetch: Fetch, show: type[BaseModel], after: Any
    ) -> None:
        self._engine, self._run_id, self._name = engine, run_id, name
        self._fetch, self._show, self._after = fetch, show, after

    async def frames(self) -> AsyncIterator[bytes]:
        """Frames until the run is over, the service stops, or its database is away."""
        try:
            async for frame in self._frames():
                yield frame
        except StoreUnavailable:
            yield b"retry: 1000\n\n"

    async def _frames(self) -> AsyncIterator[bytes]:
        yield b": runwright\n\n"  # headers and first bytes at once: the client knows that it is connected
        with self._engine.bus.subscribe(self._run_id) as told:
            while True:
                run = await self._engine.db.read(runs.get, self._run_id)
                over = run is None or run.status in RUN_TERMINAL  # before the rows: then they are all there
                while rows := await self._fetch(self._after, PAGE):
                    for row in rows:
                        yield self._frame(row)
                    self._after = rows[-1].id
                if over:
                    yield (
                        b"event: end\ndata: "
                        + orjson.dumps({"status": run.status if run else None})
                        + b"\n\n"
                    )
                    return
                own = run is not None and run.owner == self._engine.node_id
                if not own:
                    self._engine.wakeups.follow(self._run_id)
                async for beat in self._wait(told.any, OWN_LOOK_S if own else LOOK_S):
                    yield beat
                if self._engine.closing:
                    yield b"retry: 1000\n\n"
                    return

    async def _wait(self, told: Callable[[float], Awaitable[bool]], seconds: float) -> AsyncIterator[bytes]:
        """Wait until something may have come, the service stops, or the time is up, which is a heartbeat."""
        until = clock.monotonic() + seconds
        while not await told(LOOK_S) and not self._engine.closing:
            if clock.monotonic() >= until:
                yield b": heartbeat\n\n"
                return

    def _frame(self, row: Identified) -> bytes:
        value = self._show.model_validate(row).model_dump_json().encode()
        return b"id: %s\nevent: %s\ndata: %s\n\n" % (str(row.id).encode(), self._name.encode(), value)
