"""Limits on runs: what may run at once, who decides that, and how it stands."""

from typing import Annotated

from fastapi import APIRouter, Path

from app.auth import Access, needs
from app.errors import LimitNotFound
from app.models.limit_schemas import LimitChange, LimitSet, RunLimit
from app.models.wire import Page
from app.routers import cursors, problems
from app.routers.asks import Cursor, EngineDep, Limit
from app.routers.door import Door
from app.routers.repeats import KeyDep
from app.scheduler import limiting
from app.store import limits

router = APIRouter(route_class=Door, tags=["limits"])

Scope = Annotated[
    str,
    Path(
        max_length=300,
        description="`global`, `pipeline:<uuid>`, `schedule:<trigger id>` or `key:<concurrency key>`",
    ),
]


@router.get("/limits")
@needs(Access.VIEWER)
async def list_limits(engine: EngineDep, limit: Limit = 50, cursor: Cursor = None) -> Page[RunLimit]:
    """Every limit in the order of the scopes, with what runs and what waits under it."""
    after = cursors.unwrap("limit", cursor) if cursor else None
    found = await engine.db.read(limits.page, limit=limit + 1, after=after)
    last = cursors.wrap("limit", found[limit - 1].scope) if len(found) > limit else None
    return Page(items=[RunLimit.model_validate(row) for row in found[:limit]], next_cursor=last)


@router.get("/limits/{scope}", responses=problems.declare(404))
@needs(Access.VIEWER)
async def get_limit(scope: Scope, engine: EngineDep) -> RunLimit:
    """One limit."""
    limiting.check_scope(scope)
    found = await engine.db.read(limits.get, scope)
    if found is None:
        raise LimitNotFound(f"'{scope}' has no limit")
    return RunLimit.model_validate(found)


@router.put("/limits/{scope}", responses=problems.declare(404, 409, 412))
@needs(Access.EDITOR)
async def put_limit(scope: Scope, body: LimitSet, engine: EngineDep, _key: KeyDep = None) -> RunLimit:
    """Set a limit. Raised, it lets waiting runs start at once; lowered, it ends none that run.

    What a file of the project says is changed there: 409. The limit of a trigger is its setting
    `pipeline_run_limit`.
    """
    return RunLimit.model_validate(await limiting.put(engine, scope, body.cap))


@router.delete("/limits/{scope}", status_code=204, responses=problems.declare(404, 409, 412))
@needs(Access.EDITOR)
async def delete_limit(scope: Scope, engine: EngineDep, _key: KeyDep = None) -> None:
    """Lift a limit: what waited for it starts."""
    await limiting.put(engine, scope, None)


@router.get("/limits/{scope}/history", responses=problems.declare(404))
@needs(Access.VIEWER)
async def get_history(
    scope: Scope, engine: EngineDep, limit: Limit = 50, cursor: Cursor = None
) -> Page[LimitChange]:
    """Every change of a limit, newest first, also of one that was lifted."""
    limiting.check_scope(scope)
    before = cursors.unwrap_id("limit_change", cursor)
    found = await engine.db.read(limits.history, scope, limit=limit + 1, before=before)
    last = cursors.wrap("limit_change", found[limit - 1].seq) if len(found) > limit else None
    return Page(items=[LimitChange.model_validate(row) for row in found[:limit]], next_cursor=last)
