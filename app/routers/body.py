"""The one way a request body becomes a value: counted on the stream, JSON only, parsed strictly.

What JSON allows but no store, language or peer agrees on is refused here: duplicate keys (RFC 8259 §4),
numbers outside int64 or the floats, U+0000 and lone surrogates in strings, nesting deeper than 64.
"""

import asyncio
import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final, NoReturn

from starlette.requests import ClientDisconnect, Request

from app.errors import FieldError, InvalidInput, RunwrightError

MAX_DEPTH: Final = 64
#: A body that has not arrived by then is given up: a slow sender must not hold a connection.
ARRIVAL_S: Final = 15.0
INT64: Final = range(-(2**63), 2**63)
_INT64_DIGITS: Final = 20
# Possessive, so that a string of a megabyte costs neither stack nor backtracking.
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_AS_SQUARE: Final = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))


class MalformedBody(RunwrightError):
    """The body is not JSON text in UTF-8."""

    code, status, title = "malformed_json", 400, "Malformed JSON"


class BodyTooLarge(RunwrightError):
    """The body is larger than this service takes."""

    code, status, title = "body_too_large", 413, "Body too large"


class UnsupportedMediaType(RunwrightError):
    """The body is not declared to be JSON."""

    code, status, title = "unsupported_media_type", 415, "Unsupported media type"


class BodyTimeout(RunwrightError):
    """The body did not arrive in time."""

    code, status, title = "request_timeout", 408, "Request timeout"


class ParsedRequest(Request):
    """A request whose body has been read and parsed; FastAPI asks it for both."""

    def __init__(self, request: Request, body: bytes, value: object) -> None:
        super().__init__(request.scope, request.receive)
        self._body = body
        self._value = value

    async def json(self) -> Any:
        """The strictly parsed value."""
        return self._value


async def read(request: Request, limit: int, *, any_type: bool = False) -> Request:
    """The same request with its body read (at most `limit` bytes) and parsed; an empty body stays empty.

    `any_type`: it is JSON whatever its content type says, as callers written for Mage send it.
    """
    body = await _collect(request, limit)
    if not body:
        return ParsedRequest(request, b"", None)
    if not any_type:
        _require_json(request)
    return ParsedRequest(request, body, parse(body))


async def _collect(request: Request, limit: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and (len(declared) > 18 or int(declared) > limit):
        _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(ARRIVAL_S):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    _too_large(limit)
                chunks.append(chunk)
    except TimeoutError:
        raise BodyTimeout(f"The request body did not arrive within {ARRIVAL_S:g} seconds.") from None
    except ClientDisconnect:
        raise MalformedBody("The client went away before its body was complete.") from None
    return b"".join(chunks)


def _too_large(limit: int) -> NoReturn:
    raise BodyTooLarge(f"The request body is larger than {limit} bytes.")


def _require_json(request: Request) -> None:
    kind, _, parameters = request.headers.get("content-type", "").partition(";")
    if kind.strip().lower() != "application/json":
        raise UnsupportedMediaType(
            "The request body must be JSON.", hint="Send it with 'Content-Type: application/json'."
        )
    charset = parameters.replace(" ", "").replace('"', "").lower()
    if charset not in ("", "charset=utf-8"):
        raise UnsupportedMediaType("The request body must be JSON in UTF-8.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("The request body must be sent as it is, without a Content-Encoding.")


def parse(body: bytes) -> object:
    """The value of a JSON text, strictly.

    >>> parse(b'{"a": [1, 2.5, null]}')
    {'a': [1, 2.5, None]}
    """
    _check_depth(body)
    try:
        text = body.decode("utf-8")
        value = _DECODER.decode(text)
    except UnicodeDecodeError as error:
        raise MalformedBody(f"The text is not UTF-8 (byte {error.start}).") from None
    except json.JSONDecodeError as error:
        raise MalformedBody(f"{error.msg} (line {error.lineno}, column {error.colno}).") from None
    except RecursionError:  # brackets that are never closed do not show in the count above
        _refuse_depth()
    if b"\\u" in body:  # only an escape can make a NUL or a lone surrogate
        _check_strings(value)
    return value


def _check_depth(body: bytes) -> None:
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return
    brackets = _STRING.sub(b"", body).translate(_AS_SQUARE, _NO_BRACKETS)
    for _ in range(MAX_DEPTH):  # each pass takes the innermost level away, at the speed of C
        brackets = brackets.replace(b"[]", b"")
    if brackets and len(brackets.replace(b"[]", b"")) < len(brackets):
        _refuse_depth()


def _refuse_depth() -> NoReturn:
    _refuse(f"The value is nested deeper than {MAX_DEPTH} levels.")


def _check_strings(value: object) -> None:
    for text in _strings(value):
        if "\0" in text:
            _refuse("A string contains the character U+0000, which cannot be stored.")
        try:
            text.encode()
        except UnicodeEncodeError:
            _refuse("A string contains a lone surrogate, which is not a character.")


def _strings(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list():
            for item in value:
                yield from _strings(item)
        case dict():
            for key, item in value.items():
                yield key
                yield from _strings(item)


def _integer(digits: str) -> int:
    # Length first: int() of thousands of digits is slow, and Python refuses it with an error of its own.
    if len(digits) > _INT64_DIGITS or int(digits) not in INT64:
        _refuse("A number does not fit in 64 bits.")
    return int(digits)


def _real(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        _refuse("A number is too large for a float.")
    return value


def _constant(name: str) -> NoReturn:
    raise MalformedBody(f"{name} is not JSON.")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        _refuse(f"The key {json.dumps(twice[:80])} is given twice in one object.")
    return value


def _refuse(message: str) -> NoReturn:
    raise InvalidInput(message, errors=[FieldError("", message)])


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_real, parse_constant=_constant
)
