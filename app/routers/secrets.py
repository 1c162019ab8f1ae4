"""Secrets: set, listed by name, forgotten. No route gives a value."""

from typing import Annotated

from fastapi import APIRouter, Path, Response

from app.auth import Access, needs
from app.models.schemas import Nothing, Rotated, Secret, SecretValue
from app.models.wire import Page
from app.routers import cursors, problems
from app.routers.asks import Cursor, EngineDep, Limit
from app.routers.door import Door

router = APIRouter(route_class=Door, tags=["secrets"])

Name = Annotated[str, Path(max_length=255, description="name of the secret")]


@router.get("/secrets")
@needs(Access.ADMIN)
async def list_secrets(engine: EngineDep, limit: Limit = 50, cursor: Cursor = None) -> Page[Secret]:
    """Names and times of the secrets, in the order of the names."""
    after = cursors.unwrap("secret", cursor) if cursor else ""
    found = await engine.secrets.page(limit=limit + 1, after=after)
    last = cursors.wrap("secret", found[limit - 1].name) if len(found) > limit else None
    return Page(items=[Secret.model_validate(row) for row in found[:limit]], next_cursor=last)


@router.put("/secrets/{name}", responses=problems.declare(404))
@needs(Access.ADMIN)
async def put_secret(name: Name, engine: EngineDep, body: SecretValue) -> Secret:
    """Make a secret or change it. Blocks that ask for it from now on get the new value."""
    return Secret.model_validate(await engine.secrets.put(name, body.value))


@router.delete("/secrets/{name}", status_code=204, responses=problems.declare(404))
@needs(Access.ADMIN)
async def delete_secret(name: Name, engine: EngineDep) -> Response:
    """Forget a secret."""
    await engine.secrets.remove(name)
    return Response(status_code=204)


@router.post("/secrets/rotate", responses=problems.declare(409))
@needs(Access.ADMIN)
async def rotate_secrets(engine: EngineDep, body: Nothing | None = None) -> Rotated:
    """Seal every secret with the first key of RUNWRIGHT_SECRET_KEY, or with a new one where the key is in a file."""
    return Rotated(secrets=await engine.secrets.rotate())
