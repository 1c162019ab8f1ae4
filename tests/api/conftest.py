"""The real application on the real engine with SQLite, once for each module."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI

from app.main import create_app
from app.settings import load
from tests.api.project import make_project

BASE = "http://localhost:8000"


def app_on(project: Path, **given: Any) -> FastAPI:
    """The application for a project, with few processes and short waits."""
    quick = {"workers": 2, "warm_workers": 1, "drain_s": 0, "kill_grace_s": 1}
    return create_app(load(project, **{**quick, **given}))


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application while its engine runs."""
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url=BASE, timeout=70) as client,
    ):
        yield client


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service on the tests' project."""
    app = app_on(make_project(tmp_path_factory.mktemp("project")))
    ready: asyncio.Future[httpx.AsyncClient] = asyncio.get_running_loop().create_future()
    done = asyncio.Event()

    async def own() -> None:  # enters and leaves in one task, which a fixture's two halves do not
        async with serving(app) as client:
            ready.set_result(client)
            await done.wait()

    owner = asyncio.create_task(own())
    await asyncio.wait({owner, ready}, return_when=asyncio.FIRST_COMPLETED)
    if owner.done():
        owner.result()
    yield ready.result()
    done.set()
    await owner
