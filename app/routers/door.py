"""The route class of every API route: access first, then parameters, then the body, then the handler.

A route without declared access cannot be made, and :func:`check_routes` refuses an application that serves
anything which went in by another way (a mount, a websocket, a plain route).
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, ClassVar, Final, get_args, get_origin
from urllib.parse import parse_qsl

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.requests import Request
from starlette.responses import Response

from app.auth import SAFE_METHODS, Access, Guard, access_of
from app.errors import FieldError, InvalidInput, StartRefused
from app.routers import body, problems, repeats
from app.store.db import outside

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

#: The ways to show a key, as the OpenAPI names them.
SECURITY_SCHEMES: Final = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
#: The token of an API trigger in a header.
TOKEN_SCHEME: Final = {"triggerToken": {"type": "http", "scheme": "bearer"}}
#: Marks a mount as public: the object, not its path.
PUBLIC_MOUNT: Final = "runwright-public"


class Door(APIRoute):
    """An API route that lets in only what its endpoint declares with `auth.needs`."""

    #: For callers written for another service: a body is JSON whatever its type says, a query is not looked at.
    lenient: ClassVar[bool] = False

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        access = access_of(endpoint)
        if access is None:
            raise StartRefused(f"The route {path} does not declare its access.", hint="Use auth.needs(…).")
        self.access = access
        reads = set(options.get("methods") or ["GET"]) <= SAFE_METHODS
        options["responses"] = {**_common(access, reads), **(options.get("responses") or {})}
        options["openapi_extra"] = {"security": _security(access), **(options.get("openapi_extra") or {})}
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Handler:
        """The handler with everything that comes before it."""
        handle, access = super().get_route_handler(), self.access
        reads = (self.methods or set()) <= SAFE_METHODS
        single, repeatable = _query_names(self.dependant)

        async def enter(request: Request) -> Response:
            outside.set(True)
            guard: Guard = request.app.state.guard
            guard.check_key(request.scope["headers"], access)
            if (query := request.scope["query_string"]) and not self.lenient:
                _check_query(query.decode("latin-1"), single, repeatable)
            if reads:
                return await handle(request)
            return await self._once(request, handle)

        return enter

    async def _once(self, request: Request, handle: Handler) -> Response:
        """Handle a request that changes something; its repetition, told by its key, gets the first answer."""
        engine = request.app.state.engine
        if engine.is_lost:
            raise problems.NotReady(
                "The service has lost its lease and registers anew.", hint="Ask again in a moment."
            )
        limit = request.app.state.settings.body_limit
        parsed = await body.read(request, limit, any_type=self.lenient)
        key = repeats.key_of(parsed, self.path_format, await parsed.body(), _caller(request))
        if key is None:
            return await handle(parsed)
        if (answer := await repeats.earlier_answer(engine, key)) is not None:
            return answer
        response = await handle(parsed)
        await repeats.keep_answer(engine, key, response)
        return response


def check_routes(app: FastAPI) -> None:
    """Refuse to start with a route whose access nobody declared."""
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        if not isinstance(route, Door) and getattr(route, "name", None) != PUBLIC_MOUNT:
            raise StartRefused(f"The route {context.path} does not declare its access.")


def _security(access: Access) -> list[dict[str, list[str]]]:
    keyless = access in (Access.PUBLIC, Access.TOKEN)
    return [] if keyless else [{name: []} for name in SECURITY_SCHEMES]


def _common(access: Access, reads: bool) -> dict[int | str, dict[str, Any]]:
    statuses = [421, 422, 500, 503]
    if access not in (Access.PUBLIC, Access.TOKEN):
        statuses.append(401)
    if not reads:
        statuses += [400, 403, 408, 413, 415, 504]
    return problems.declare(*sorted(statuses))


def _caller(request: Request) -> str:
    """Tells callers apart whose keys must not meet: the beginning of a digest of what they authenticate with."""
    shown = request.headers.get("authorization") or request.headers.get("x-api-key") or ""
    return hashlib.sha256(shown.encode()).hexdigest()[:16]


def _query_names(dependant: Dependant) -> tuple[frozenset[str], frozenset[str]]:
    """The names of the query parameters: those given once at most, and those that may be repeated."""
    fields = list(_query_fields(dependant))
    repeatable = {field.alias for field in fields if _is_list(field.field_info.annotation)}
    return frozenset(field.alias for field in fields) - repeatable, frozenset(repeatable)


def _query_fields(dependant: Dependant) -> Iterable[Any]:
    yield from dependant.query_params
    for inner in dependant.dependencies:
        yield from _query_fields(inner)


def _is_list(annotation: object) -> bool:
    origin = get_origin(annotation)
    return origin is list or any(_is_list(part) for part in get_args(annotation))


def _check_query(query: str, single: frozenset[str], repeatable: frozenset[str]) -> None:
    given = parse_qsl(query, keep_blank_values=True)
    counts = Counter(name for name, _ in given)
    unknown = [
        FieldError(name[:100], "unknown parameter") for name in counts if name not in single | repeatable
    ]
    twice = [FieldError(name, "given more than once") for name in single if counts[name] > 1]
    nul = [FieldError(name, "must not hold the character U+0000") for name, value in given if "\0" in value]
    if faults := unknown + twice + nul:
        raise InvalidInput(f"{faults[0].pointer}: {faults[0].message}", errors=faults)
