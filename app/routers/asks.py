"""What routes ask for: the engine, and the parameters that many of them share."""

import re
from typing import Annotated, Any, Final

from fastapi import Depends, Header, Path, Query
from pydantic import BeforeValidator
from starlette.requests import Request

from app.errors import FieldError, InvalidInput
from app.models.wire import MAX_INT64, parse_int64
from app.scheduler.engine import Engine

MAX_WAIT_S: Final = 60
_WAIT: Final = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?([^\s,;\"]*)", re.IGNORECASE)


async def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


def _id(of: str) -> Any:
    return Path(ge=1, le=MAX_INT64, description=f"id of the {of}")


EngineDep = Annotated[Engine, Depends(_engine)]
PipelineUuid = Annotated[str, Path(max_length=255, description="folder name of the pipeline")]
RunId = Annotated[int, _id("pipeline run"), BeforeValidator(parse_int64)]
BlockRunId = Annotated[int, _id("block run"), BeforeValidator(parse_int64)]
ScheduleId = Annotated[int, _id("trigger"), BeforeValidator(parse_int64)]
Limit = Annotated[int, Query(ge=1, le=200, description="items on a page"), BeforeValidator(parse_int64)]
Cursor = Annotated[
    str | None,
    Query(max_length=500, pattern="^[A-Za-z0-9_-]+$", description="`next_cursor` of the page before"),
]
Prefer = Annotated[str | None, Header(description="`wait=N`: wait up to N seconds (60 at most) for the end")]


def wait_of(prefer: str | None) -> int | None:
    """Seconds of `wait=N` in a Prefer header (RFC 7240); other preferences are ignored, as they may be.

    >>> wait_of("respond-async, wait=10"), wait_of("return=minimal"), wait_of(None)
    (10, None, None)
    """
    found = _WAIT.search(prefer or "")
    if found is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", found[1]) or int(found[1]) > MAX_WAIT_S:
        message = f"wait must be a whole number of seconds, {MAX_WAIT_S} at most"
        raise InvalidInput(f"Prefer: {message}", errors=[FieldError("Prefer", message)])
    return int(found[1])
