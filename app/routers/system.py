"""Probes: is the process alive, does it take work, how is it. And the pause of everything."""

from fastapi import APIRouter

from app import clock
from app.auth import Access, needs
from app.errors import StoreUnavailable
from app.models.schemas import Alive, Health, Ready
from app.models.system_schemas import PauseAll, PauseState, ResumeAll
from app.routers.asks import EngineDep
from app.routers.door import Door
from app.routers.problems import NotReady
from app.scheduler.engine import Engine
from app.store import pausing
from app.store.health import prove

router = APIRouter(route_class=Door, tags=["system"])
#: the part of it that is below /api/v1
api = APIRouter(route_class=Door, tags=["system"])
_ALIVE, _READY = Alive(), Ready()


@router.get("/livez")
@needs(Access.PUBLIC)
async def livez() -> Alive:
    """The process answers. A supervisor restarts the service when this does not."""
    return _ALIVE


@router.get("/readyz")
@needs(Access.PUBLIC)
async def readyz(engine: EngineDep) -> Ready:
    """The service takes work and its database does. A load balancer sends requests elsewhere while this is a 503."""
    if not engine.ready:
        raise NotReady("The service is starting or stopping.", hint="Ask again in a moment.")
    try:
        await prove(engine.db)
    except StoreUnavailable:  # the cause names paths and hosts: it is for the log, not for everybody
        raise NotReady("The database cannot be used.", hint="The service's log says why.") from None
    return _READY


@router.get("/health")
@needs(Access.PUBLIC)
async def health(engine: EngineDep) -> Health:
    """How the scheduler is: its lag, the oldest due slot that waits, nodes, live runs."""
    return Health.model_validate(await engine.health())


@api.get("/system/pause")
@needs(Access.VIEWER)
async def get_pause(engine: EngineDep) -> PauseState:
    """Whether all triggers are paused, since when and why."""
    return await _pause_state(engine)


@api.post("/system/pause")
@needs(Access.OPERATOR)
async def pause_all(engine: EngineDep, body: PauseAll | None = None) -> PauseState:
    """Pause all triggers, on every node and over restarts, until they are resumed.

    Once this is answered no slot is decided. Runs that exist go on, and what somebody launches runs. A pause that
    holds already is returned unchanged.
    """
    asked = body or PauseAll()
    await engine.db.write(pausing.pause_all, asked.note, clock=clock.now)
    return await _pause_state(engine)


@api.post("/system/resume")
@needs(Access.OPERATOR)
async def resume_all(engine: EngineDep, body: ResumeAll | None = None) -> PauseState:
    """Let all triggers go on. What was due meanwhile is treated as `missed` says, else as after an outage."""
    asked = body or ResumeAll()
    await engine.db.write(pausing.resume_all, asked.missed, clock=clock.now)
    return await _pause_state(engine)


async def _pause_state(engine: Engine) -> PauseState:
    found = await engine.db.read(pausing.paused)
    return PauseState(
        paused=found is not None,
        at=found.at if found else None,
        note=found.note if found else None,
        paused_here=engine.settings.paused,
    )
