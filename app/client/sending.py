"""Sending one request until it is answered: what may be repeated, how often, and how long to wait in between."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from random import uniform
from typing import Final

import httpx

from app.client.faults import Unreachable, error_of
from app.client.flow import Flow, Pause, Request

#: Answers of a service or a proxy that has no time now; 503 says that nothing was changed.
AGAIN: Final = frozenset({429, 502, 503, 504})
_CHANGED_NOTHING: Final = frozenset({429, 503})
#: Faults before the request was on its way.
_NEVER_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
#: Faults that another attempt will only repeat.
_HOPELESS: Final = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)
#: A service that asks for more patience than this gets this.
_LONGEST_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a request is repeated, and how long the pauses are: doubled each time, up to a cap, and spread."""

    count: int = 8
    first_s: float = 0.25
    cap_s: float = 8.0

    def pause(self, number: int, at_least_s: float = 0.0) -> Pause:
        """The pause after failure `number`, counted from 0; `at_least_s` is what the service asked for.

        >>> 0.5 <= Retries(first_s=1).pause(0).seconds <= 1
        True
        >>> 4 <= Retries(first_s=1, cap_s=8).pause(60).seconds <= 8
        True
        >>> Retries().pause(0, at_least_s=5).seconds
        5
        """
        grown = min(self.cap_s, self.first_s * 2 ** min(number, 30)) * uniform(0.5, 1)
        return Pause(max(grown, min(at_least_s, _LONGEST_S)))


def send(request: Request, retries: Retries) -> Flow[httpx.Response]:
    """The good answer to a request. Raises ServiceError for a bad one, Unreachable without one."""
    lost = False
    for number in count():
        try:
            response: httpx.Response = yield request
        except httpx.TransportError as error:
            if number >= retries.count or not _may_repeat(request, error):
                raise unreachable(request, error) from error
            lost = lost or not isinstance(error, _NEVER_SENT)
            yield retries.pause(number)
            continue
        if response.is_success or (lost and _was_done(request, response)):
            return response
        if number >= retries.count or not _may_ask_again(request, response.status_code):
            raise error_of(response)
        yield retries.pause(number, retry_after_s(response.headers))
    raise AssertionError("count() does not end")


def _may_repeat(request: Request, error: httpx.TransportError) -> bool:
    if isinstance(error, _HOPELESS):
        return False
    return request.repeatable or isinstance(error, _NEVER_SENT)


def _may_ask_again(request: Request, status: int) -> bool:
    return status in (AGAIN if request.repeatable else _CHANGED_NOTHING)


def _was_done(request: Request, response: httpx.Response) -> bool:
    """A deletion whose answer was lost is found done."""
    return request.method == "DELETE" and response.status_code == 404


def unreachable(request: Request, error: httpx.TransportError) -> Unreachable:
    """The error for a service that does not answer."""
    asked = error.request.url if _has_request(error) else request.path
    reason = str(error) or type(error).__name__
    return Unreachable(
        f"No answer from {asked}: {reason}.", hint="Is the service running, and is its address right?"
    )


def _has_request(error: httpx.TransportError) -> bool:
    return getattr(error, "_request", None) is not None


def retry_after_s(headers: Mapping[str, str]) -> float:
    """Seconds of a Retry-After header (RFC 9110 §10.2.3); 0 without one, and for a date, whose clock is not ours.

    >>> retry_after_s({"retry-after": "3"}), retry_after_s({}), retry_after_s({"retry-after": "soon"})
    (3.0, 0.0, 0.0)
    """
    value = headers.get("retry-after", "").strip()
    return float(value) if value.isascii() and value.isdigit() else 0.0
