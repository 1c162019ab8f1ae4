"""Following what a run writes: server-sent events, taken up again after the last one that came.

A service without streams, or a proxy that answers something else, is read page by page instead.
"""

from collections.abc import Callable, Generator, Mapping
from typing import Any, Final, TypeVar

import httpx

from app.client.calls import Model, given, page
from app.client.faults import ClientError, Unreachable, error_of
from app.client.flow import Ask, Chunk, Emit, Pause, Request, Stream
from app.client.sending import AGAIN, Retries, retry_after_s, unreachable
from app.client.sse import Event, Parser
from app.models.schemas import LogLine, RunEvent

T = TypeVar("T")
#: emits values and says at its end whether there was a stream at all
Following = Generator[Ask | Emit[T], Any, bool]

_MEDIA_TYPE: Final = "text/event-stream"
#: A stream that is silent for so long has lost its heartbeat.
_SILENCE_S: Final = 60.0
#: Pauses between two pages that bring nothing, while the run goes on.
_FIRST_S, _LAST_S = 0.2, 2.0


def follow_logs(run_id: int, block_uuid: str | None, retries: Retries) -> Stream[LogLine]:
    """The log of a run from its first line to its end."""
    path, params = f"pipeline_runs/{run_id}/logs", given(block_uuid=block_uuid)
    streamed = yield from follow(path, params, _line, retries)
    if not streamed:
        yield from _pages_to_the_end(LogLine, path, params, retries)


def _line(event: Event) -> LogLine:
    return LogLine.model_validate_json(event.data)


def follow_events(run_id: int, retries: Retries) -> Stream[RunEvent]:
    """What happens to a run, from its creation to its end."""
    path = f"pipeline_runs/{run_id}/events"
    streamed = yield from follow(path, {}, _run_event, retries)
    if not streamed:
        yield from _pages_to_the_end(RunEvent, path, {}, retries)


def _run_event(event: Event) -> RunEvent:
    return RunEvent.model_validate_json(event.data)


class _Place:
    """How far a stream has come, and how often it has failed since."""

    last = ""
    failures = 0


def follow(
    path: str, params: Mapping[str, Any], parse: Callable[[Event], T], retries: Retries
) -> Following[T]:
    """The events of a stream until its end. Raises what the service answers, Unreachable without an answer."""
    place = _Place()
    while True:
        asked, patience_s = _opening(path, params, place.last), 0.0
        try:
            response: httpx.Response = yield asked
            if _is_stream(response):
                if (yield from _take(place, parse)):
                    return True
                failure: ClientError = Unreachable(f"The stream of {path} broke off.")
            elif response.status_code in AGAIN:
                failure, patience_s = error_of(response), retry_after_s(response.headers)
            elif place.last or not _means_no_stream(response):
                raise error_of(response)
            else:
                return False
        except httpx.TransportError as error:
            failure = unreachable(asked, error)
        if place.failures >= retries.count:
            raise failure
        yield retries.pause(place.failures, patience_s)
        place.failures += 1


def _opening(path: str, params: Mapping[str, Any], last: str) -> Request:
    headers = {"Accept": _MEDIA_TYPE, **({"Last-Event-ID": last} if last else {})}
    return Request("GET", path, {**params, "follow": "true"}, headers=headers, read_s=_SILENCE_S, stream=True)


def _take(place: _Place, parse: Callable[[Event], T]) -> Following[T]:
    """What the open stream brings; True when it came to its `end`."""
    parser = Parser()
    while (chunk := (yield Chunk())) is not None:
        for event in parser.feed(chunk):
            if event.name == "end":
                return True
            place.last, place.failures = event.id, 0
            yield Emit(parse(event))
    return False


def _is_stream(response: httpx.Response) -> bool:
    return response.is_success and response.headers.get("content-type", "").startswith(_MEDIA_TYPE)


def _means_no_stream(response: httpx.Response) -> bool:
    """A page instead, or an answer that does not know the parameter or the media type."""
    return response.is_success or response.status_code in (406, 422)


def _pages_to_the_end(
    kind: type[Model], path: str, params: Mapping[str, Any], retries: Retries
) -> Stream[Model]:
    """The items of a list that grows while the run goes on: its last page is the one without a cursor."""
    cursor: str | None = None
    pause = _FIRST_S
    while True:
        found = yield from page(kind, path, params, cursor, retries)
        for item in found.items:
            yield Emit(item)
        cursor = found.next_cursor
        if cursor is None:
            return
        pause = _FIRST_S if found.items else min(pause * 1.5, _LAST_S)
        if not found.items:
            yield Pause(pause)
