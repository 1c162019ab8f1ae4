"""Probes: is the process alive, does it take work, how is it."""

from fastapi import APIRouter

from app.auth import Access, needs
from app.models.schemas import Alive, Health, Ready
from app.routers.asks import EngineDep
from app.routers.door import Door
from app.routers.problems import NotReady

router = APIRouter(route_class=Door, tags=["system"])
_ALIVE, _READY = Alive(), Ready()


@router.get("/livez")
@needs(Access.PUBLIC)
async def livez() -> Alive:
    """The process answers. A supervisor restarts the service when this does not."""
    return _ALIVE


@router.get("/readyz")
@needs(Access.PUBLIC)
async def readyz(engine: EngineDep) -> Ready:
    """The service takes work. A load balancer sends requests elsewhere while this is a 503."""
    if not engine.ready:
        raise NotReady("The service is starting or stopping.", hint="Ask again in a moment.")
    return _READY


@router.get("/health")
@needs(Access.PUBLIC)
async def health(engine: EngineDep) -> Health:
    """How the scheduler is: its lag, the oldest due slot that waits, nodes, live runs."""
    return Health.model_validate(await engine.health())
