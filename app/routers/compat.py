"""Doors for callers written for Mage: its paths and shapes, without `/v1`, so that their lines stay as they are.

Mage: "API trigger". The token is the credential: no key is needed, and none helps. Unlike in Mage, a token that
is wrong is a 404, the same as for a trigger that is unknown, inactive or of another type.
"""

import re
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path
from starlette.requests import Request

from app.auth import Access, bearer, needs
from app.models.rows import RunRow
from app.models.trigger_schemas import MageAnswer, MageRun
from app.models.wire import MAX_INT64
from app.routers import problems
from app.routers.asks import EngineDep
from app.routers.door import TOKEN_SCHEME, Door
from app.routers.repeats import KeyDep
from app.scheduler.engine import Engine
from app.store.idempotency import Idempotency


class MageDoor(Door):
    """A route for callers who were never told of content types or of query parameters."""

    lenient = True


router = APIRouter(route_class=MageDoor, tags=["for callers of Mage"])

_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "description": "JSON, whatever its content type; every other top-level key is an event variable",
        "required": False,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "additionalProperties": True,
                    "properties": {
                        "pipeline_run": {
                            "type": "object",
                            "additionalProperties": False,
                            "properties": {
                                "variables": {"type": "object", "additionalProperties": True},
                                "execution_date": {
                                    "type": "string",
                                    "description": "ISO 8601; UTC without an offset",
                                },
                            },
                        }
                    },
                }
            }
        },
    }
}
_BEARER: Final[dict[str, Any]] = {"security": [{name: []} for name in TOKEN_SCHEME]}
TriggerId = Annotated[str, Path(description="id of the trigger")]


@router.post(
    "/pipeline_schedules/{schedule_id}/pipeline_runs/{token}",
    responses=problems.declare(404, 409),
    openapi_extra=_BODY,
)
@needs(Access.TOKEN)
async def trigger_by_url(
    schedule_id: TriggerId,
    token: Annotated[str, Path(description="token of the trigger")],
    request: Request,
    engine: EngineDep,
    key: KeyDep = None,
) -> MageAnswer:
    """Start a run of an active API trigger whose token is in the path."""
    return await _start(engine, schedule_id, token, request, key)


@router.post(
    "/pipeline_schedules/{schedule_id}/api_trigger",
    responses=problems.declare(404, 409),
    openapi_extra={**_BODY, **_BEARER},
)
@needs(Access.TOKEN)
async def trigger_by_header(
    schedule_id: TriggerId, request: Request, engine: EngineDep, key: KeyDep = None
) -> MageAnswer:
    """Start a run of an active API trigger whose token is in the Authorization header, as Bearer."""
    token = bearer(request.scope["headers"])
    return await _start(engine, schedule_id, token.decode("latin-1") if token else None, request, key)


async def _start(
    engine: Engine, schedule_id: str, token: str | None, request: Request, key: Idempotency | None
) -> MageAnswer:
    if not engine.ready:
        raise problems.NotReady("The service is starting or stopping.", hint="Ask again in a moment.")
    run = await engine.triggers.launch_by_token(
        _number(schedule_id), token, await request.json(), idempotency=key
    )
    return MageAnswer(pipeline_run=_in_mages_words(run))


def _number(schedule_id: str) -> int | None:
    """The id, if it can be one: what is none is as unknown as one that nobody has."""
    number = int(schedule_id) if re.fullmatch(r"[0-9]{1,19}", schedule_id) else 0
    return number if 0 < number <= MAX_INT64 else None


def _in_mages_words(run: RunRow) -> MageRun:
    last = run.completed_at or run.started_at or run.created_at
    values = {name: getattr(run, name) for name in MageRun.model_fields if hasattr(run, name)}
    return MageRun(**values, updated_at=last)
