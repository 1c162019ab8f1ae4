"""The outermost layer of the HTTP service, pure ASGI: what holds for every request, matched or not.

Request id in and out, Host and Origin, headers that protect browsers, and the last net under everything: what
no layer expected becomes a 500 problem and one line in the log.
"""

import logging
import re
from secrets import token_hex
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.auth import Guard
from app.errors import RunwrightError
from app.routers import problems

log = logging.getLogger(__name__)

#: What a caller may choose as the id of its request; anything else is replaced.
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._\-]{1,128}")
_PROTECTION: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


class Gate:
    """ASGI middleware; `guard` judges Host and Origin."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app = app
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through, or answer it here."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = scope[problems.REQUEST_ID] = _request_id(scope)
        if is_head := scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}  # answered like a GET, less the body (RFC 9110 §9.3.2)
        started = False

        async def stamped(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                for name, value in _PROTECTION.items():
                    headers.setdefault(name, value)
            await send({**message, "body": b""} if is_head and "body" in message else message)

        try:
            self._judge(scope)
            await self._app(scope, receive, stamped)
        except RunwrightError as error:
            await problems.respond(scope, error)(scope, receive, stamped)
        except Exception as error:  # the last net: nobody above can answer the caller any more
            log.exception("request %s failed", request_id)
            if not started:
                await problems.respond(scope, RunwrightError(type(error).__name__))(scope, receive, stamped)

    def _judge(self, scope: Scope) -> None:
        headers = scope["headers"]
        server = scope.get("server")
        self._guard.check_host(headers, server[0] if server else None)
        self._guard.check_origin(headers, scope["method"])


def _request_id(scope: Scope) -> str:
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    return given.decode("ascii") if _REQUEST_ID.fullmatch(given) else token_hex(8)
