"""The service as one ASGI application: routers, errors, and a lifespan that runs the engine."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from app import __version__
from app.auth import Guard, require_safe_bind
from app.routers import (
    block_runs,
    compat,
    docs,
    ledger,
    limits,
    pipelines,
    problems,
    runs,
    schedules,
    secrets,
    system,
)
from app.routers.door import check_routes
from app.routers.gate import Gate
from app.scheduler.build import build_engine
from app.scheduler.engine import Engine
from app.scheduler.lives import Lives, living
from app.settings import Settings

API = "/api/v1"
MAGE_API = "/api"
_ABOUT = "Schedules and runs data pipelines. Errors are RFC 9457 problems; times are RFC 3339 with an offset."


def create_app(settings: Settings) -> FastAPI:
    """The application for these settings; its engine runs while the lifespan does.

    Raises StartRefused for settings that must not be served.
    """
    require_safe_bind(settings)
    guard = Guard(settings)
    app = FastAPI(
        title="Runwright",
        version=__version__,
        description=_ABOUT,
        lifespan=_lifespan,
        openapi_url=None,  # served by routers/docs, like every route with a declared access
        redirect_slashes=False,
    )
    app.state.settings, app.state.guard, app.state.engine = settings, guard, build_engine(settings)
    app.add_middleware(Gate, guard=guard)
    problems.install(app)
    for router in (
        pipelines.router,
        runs.router,
        block_runs.router,
        ledger.router,
        schedules.router,
        limits.router,
        secrets.router,
        system.api,
    ):
        app.include_router(router, prefix=API)
    app.include_router(compat.router, prefix=MAGE_API)
    app.include_router(system.router)
    docs.install(app)
    check_routes(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with living(lives_of(app)):
        yield


def lives_of(app: FastAPI) -> Lives:
    """The lives of the application's engine; its routes ask the one that came up last."""

    def is_up(engine: Engine) -> None:
        app.state.engine = engine

    return Lives(app.state.engine, is_up)
