"""Single requests and lists: from what a caller says to a request, and from an answer to what it means."""

from collections.abc import Mapping
from typing import Any, Final, TypeVar
from urllib.parse import quote
from uuid import uuid4

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from app.client.flow import Emit, Flow, Request, Stream
from app.client.sending import Retries, send
from app.models.wire import Page

Model = TypeVar("Model", bound=BaseModel)

#: Items on a page, where the caller does not care.
_PAGE: Final = 200


class Calls:
    """A group of methods of the API; they share how a request is repeated."""

    def __init__(self, retries: Retries) -> None:
        self._retries = retries


def given(**fields: Any) -> dict[str, Any]:
    """The fields that have a value: what was not said is left to the service.

    >>> given(variables={}, block_uuid=None)
    {'variables': {}}
    """
    return {name: value for name, value in fields.items() if value is not None}


def part(name: str) -> str:
    """A name as one part of a path.

    >>> part("a/b c")
    'a%2Fb%20c'
    """
    return quote(name, safe="")


def post(path: str, key: str | None = None, /, **body: Any) -> Request:
    """A request that changes something, once however often it is sent: it has an idempotency key."""
    return Request(
        "POST", path, body=jsonable(given(**body)), headers={"Idempotency-Key": key or uuid4().hex}
    )


def jsonable(body: Mapping[str, Any]) -> dict[str, Any]:
    """The same as JSON can carry it: times and decimals as text, numbers of numpy as numbers."""
    value: dict[str, Any] = to_jsonable_python(body, fallback=_plain)
    return value


def _plain(value: Any) -> object:
    item = getattr(value, "item", None)
    return item() if callable(item) else str(value)


def one(kind: type[Model], request: Request, retries: Retries) -> Flow[Model]:
    """The one thing that a request is answered with."""
    response = yield from send(request, retries)
    return kind.model_validate_json(response.content)


def page(
    kind: type[Model], path: str, params: Mapping[str, Any], cursor: str | None, retries: Retries
) -> Flow[Page[Model]]:
    """One page of a list."""
    asked = Request("GET", path, {**params, **given(cursor=cursor)})
    return one(Page[kind], asked, retries)  # type: ignore[valid-type]


def pages(
    kind: type[Model], path: str, params: Mapping[str, Any], retries: Retries, limit: int | None = None
) -> Stream[Model]:
    """The items of a list, page by page as they are taken; `limit` of them at most."""
    left = _PAGE if limit is None else limit
    cursor: str | None = None
    while left > 0:
        size = min(left, _PAGE)
        found = yield from page(kind, path, {**params, "limit": size}, cursor, retries)
        for item in found.items:
            yield Emit(item)
        left -= 0 if limit is None else len(found.items)
        cursor = found.next_cursor
        if cursor is None or len(found.items) < size:  # a list that still grows has a cursor on its last page
            return
