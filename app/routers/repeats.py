"""`Idempotency-Key`: a repeated request gets the first answer, and has its effect once.

A handler that creates something passes `KeyDep` down to the store, which takes the key in the transaction of
the effect; whatever the door answers is then kept here for the next time. If the service died in between, the
handler runs again and answers what the effect has become.
"""

import hashlib
import logging
import re
from typing import Annotated, Final

from fastapi import Depends, Header
from starlette.requests import Request
from starlette.responses import Response

from app import clock
from app.errors import FieldError, InvalidInput, StoreUnavailable
from app.scheduler.engine import Engine
from app.store import idempotency
from app.store.idempotency import Idempotency

log = logging.getLogger(__name__)

HEADER: Final = "idempotency-key"
_KEY: Final = re.compile(r"[!-~]{1,255}")
#: Answers larger than this are not kept: a repetition then shows the effect as it is.
MAX_ANSWER: Final = 256 * 1024


def key_of(request: Request, route: str, body: bytes, caller: str) -> Idempotency | None:
    """The key of a request, None without one. Raises InvalidInput for one that is not printable ASCII."""
    key = request.headers.get(HEADER)
    if key is None:
        return None
    if not _KEY.fullmatch(key):
        message = "must be 1 to 255 printable ASCII characters"
        raise InvalidInput(f"Idempotency-Key {message}", errors=[FieldError("Idempotency-Key", message)])
    whole = b"\0".join((request.url.path.encode(), request.scope["query_string"], body))
    found = Idempotency(f"{request.method} {route} {caller}", key, hashlib.sha256(whole).hexdigest())
    request.scope["runwright.idempotency"] = found
    return found


async def earlier_answer(engine: Engine, request: Idempotency) -> Response | None:
    """The first answer to this request, if it was asked and answered before. Raises IdempotencyMismatch."""
    known = await engine.db.read(idempotency.find, request)
    if known is None or known.answer is None or known.status is None:
        return None
    return Response(
        known.answer,
        known.status,
        {"Idempotency-Replayed": "true"},
        media_type="application/json",
    )


async def keep_answer(engine: Engine, request: Idempotency, response: Response) -> None:
    """Keep what was answered, if the request has succeeded: a failure may be tried again.

    An answer that nobody may store (`Cache-Control: no-store`, it holds a secret) is not stored here either.
    """
    body = getattr(response, "body", b"")
    secret = "no-store" in response.headers.get("cache-control", "")
    if response.status_code < 300 and len(body) <= MAX_ANSWER and not secret:
        text = bytes(body).decode()
        try:
            await engine.db.write(idempotency.remember, request, response.status_code, text, now=clock.now())
        except StoreUnavailable as error:  # it has had its effect: a repetition shows what that has become
            log.warning("an answer is not kept: %s", error)


async def _key(
    request: Request,
    _declared: Annotated[
        str | None,
        Header(alias="Idempotency-Key", description="the same key and request again get the first answer"),
    ] = None,
) -> Idempotency | None:
    found: Idempotency | None = request.scope.get("runwright.idempotency")
    return found


#: The caller's key, for handlers that hand it to the store.
KeyDep = Annotated[Idempotency | None, Depends(_key)]
