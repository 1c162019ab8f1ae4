"""Every error as one RFC 9457 problem: rendered here once, declared for the OpenAPI here once.

A 4xx carries the message of the error that was raised. A 5xx carries a fixed sentence and the request id;
what really happened is in the log under that id, never in the answer.
"""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from app.errors import FieldError, RunwrightError, sentence
from app.models.wire import Problem

log = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"
REQUEST_ID: Final = "runwright.request_id"
_MAX_ERRORS: Final = 20
_TOKEN: Final = re.compile(r"(/api/pipeline_schedules/[^/]*/pipeline_runs/).+", re.DOTALL)
_FIXED: Final = {
    500: "The service made an error; the log has it under the request id.",
    503: "The database does not answer; nothing was changed.",
    504: "The database went away before it said that the change is made. Look whether it is, or repeat the request"
    " with the same Idempotency-Key.",
}
_HEADERS: Final = {
    401: {"WWW-Authenticate": 'Bearer realm="runwright"'},
    408: {"Connection": "close"},
    413: {"Connection": "close"},
    503: {"Retry-After": "1"},
    504: {"Retry-After": "1"},
}
_MESSAGES: Final = {"extra_forbidden": "unknown field", "model_attributes_type": "must be a JSON object"}
_CODES: Final = {404: "unknown_path", 405: "method_not_allowed", 429: "too_many_requests"}


class NotReady(RunwrightError):
    """The service is starting or stopping and takes no new work."""

    code, status, title = "not_ready", 503, "Not ready"


def respond(scope: Scope, error: RunwrightError, *, headers: Mapping[str, str] | None = None) -> Response:
    """The problem response for `error`."""
    hidden = error.status >= 500 and not isinstance(error, NotReady)
    detail = _FIXED.get(error.status, _FIXED[500]) if hidden else sentence(error.detail)
    problem: dict[str, Any] = {
        "type": f"urn:runwright:problem:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": detail,
        "instance": _instance(scope),
        "code": error.code,
        "request_id": scope.get(REQUEST_ID, ""),
    }
    if error.hint and not hidden:
        problem["hint"] = sentence(error.hint)
    if error.errors:
        problem["errors"] = [
            {"pointer": fault.pointer, "message": fault.message} for fault in error.errors[:_MAX_ERRORS]
        ]
    return Response(
        json.dumps(problem),
        status_code=error.status,
        media_type=MEDIA_TYPE,
        headers={**_HEADERS.get(error.status, {}), **(headers or {})},
    )


def _instance(scope: Scope) -> str:
    """The path of the request, without the token of an API trigger that it may hold."""
    path = _TOKEN.sub(r"\1***", scope.get("path", ""))
    return quote(path, safe="/~!$&'()*+,;=:@")


def install(app: FastAPI) -> None:
    """Render the errors that reach the application's edge."""

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, RunwrightError)
        if error.status >= 500 and not isinstance(error, NotReady):
            log.error("request %s failed: %s: %s", request.scope[REQUEST_ID], error.code, error.detail)
        return respond(request.scope, error)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return respond(request.scope, _Invalid(error.errors()))

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        headers = dict(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = ", ".join(_allowed_methods(app, request.scope))
        return respond(request.scope, _Http(error.status_code, request.scope), headers=headers)

    app.add_exception_handler(RunwrightError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)


class _Invalid(RunwrightError):
    code, status, title = "invalid_input", 422, "Invalid input"

    def __init__(self, faults: Sequence[Mapping[str, Any]]) -> None:
        errors = [FieldError(_pointer(fault["loc"]), _message(fault)) for fault in faults]
        first = errors[0]
        super().__init__(f"{first.pointer or 'body'}: {first.message}", errors=errors)


class _Http(RunwrightError):
    def __init__(self, status: int, scope: Scope) -> None:
        phrase = HTTPStatus(status).phrase
        details = {
            404: "Nothing is served at this path.",
            405: f"{scope['method']} is not possible at this path.",
        }
        hints = {404: "The paths of the API are listed at /docs."}
        super().__init__(details.get(status, phrase), hint=hints.get(status, ""))
        self.status, self.title = status, phrase.capitalize()
        self.code = _CODES.get(status, phrase.lower().replace(" ", "_"))


def _pointer(place: Sequence[str | int]) -> str:
    """A JSON pointer into the body, or the name of a parameter.

    >>> _pointer(("body", "variables", "a/b")), _pointer(("query", "limit"))
    ('/variables/a~1b', 'limit')
    """
    source, *parts = place
    if source == "body":
        return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)
    return str(parts[0]) if parts else ""


def _message(fault: Mapping[str, Any]) -> str:
    if fixed := _MESSAGES.get(fault["type"]):
        return fixed
    message = str(fault["msg"]).removeprefix("Value error, ")
    return message[:500]


def _allowed_methods(app: FastAPI, scope: Scope) -> list[str]:
    """The methods that some route takes at this path (RFC 9110 §15.5.6)."""
    probe = {"type": "http", "path": scope["path"], "root_path": scope.get("root_path", ""), "headers": []}
    methods = ("GET", "POST", "PUT", "PATCH", "DELETE")
    found = [
        method
        for method in methods
        if any(route.matches({**probe, "method": method})[0] is Match.FULL for route in app.routes)
    ]
    found = found or ["GET"]  # none: the mount of static files
    return [*found, "HEAD"] if "GET" in found else found


def declare(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of a route that may answer with these problems."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }


def schema() -> dict[str, Any]:
    """The OpenAPI component that :func:`declare` refers to."""
    return Problem.model_json_schema(ref_template="#/components/schemas/{model}")
