"""One service for all pipelines of the project, on each database: every way a run can begin, at the same time."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from app.main import create_app
from app.models.rows import RunRow
from app.models.states import Cause
from app.scheduler.engine import Engine
from app.settings import load
from app.store import logs, runs
from tests.conftest import BACKENDS
from tests.projects.expected import PROJECT, Expected, Found, all_expected, of_rows

V1 = "/api/v1/pipelines"
#: blocks are no tests, and some raise when they are imported
collect_ignore = [PROJECT.name]
ONCE = """triggers:
- name: at_once
  schedule_type: time
  schedule_interval: '@once'
  status: active
"""


def copied(to: Path, *, triggers: bool = False) -> Path:
    """The project in a folder of the same name, since its blocks import by it.

    With `triggers` each pipeline has one that is due now, and those that can run inline have a twin that does.
    """
    project = shutil.copytree(PROJECT, to / PROJECT.name, ignore=shutil.ignore_patterns("__pycache__"))
    for one in all_expected() if triggers else ():
        folder = project / "pipelines" / one.uuid
        if one.goes("schedule") and not (folder / "triggers.yaml").exists():
            (folder / "triggers.yaml").write_text(ONCE)
        if one.keys.get("inline"):
            twin = shutil.copytree(folder, folder.with_name(f"{one.uuid}_inline"))
            text = (twin / "metadata.yaml").read_text().replace(f"uuid: {one.uuid}\n", "isolation: inline\n")
            (twin / "metadata.yaml").write_text(text)
    return project


@dataclass
class Served:
    """A service that has been asked for everything at once; `asked` is pipeline -> run."""

    engine: Engine
    http: httpx.AsyncClient
    asked: Mapping[str, int]

    async def found(self, run_id: int) -> Found:
        """What became of a run."""
        assert await self.engine.wait(run_id, 60)
        return await look(self.engine, run_id)

    async def triggered(self, pipeline_uuid: str) -> RunRow:
        """The run that the trigger of a pipeline has started."""
        async with asyncio.timeout(30):
            while True:
                page = await self.engine.db.read(
                    runs.page, limit=2, pipeline_uuid=[pipeline_uuid], cause=[Cause.TICK]
                )
                if page:
                    (run,) = page
                    return run
                await asyncio.sleep(0.05)


async def look(engine: Engine, run_id: int) -> Found:
    run = await engine.db.read(runs.get, run_id)
    assert run is not None
    lines = await engine.db.read(logs.page, run_id, after=None, limit=1000)
    return of_rows(run, await engine.db.read(runs.blocks, run_id), lines, engine.settings.artifacts)


@pytest.fixture(scope="module", params=BACKENDS)
def store_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty database for the module; "" is a SQLite file in the project's home."""
    if request.param == "sqlite":
        yield ""
        return
    server, template = request.getfixturevalue("postgres"), request.getfixturevalue("postgres_template")
    name = server.create(template)
    yield server.url(name)
    server.drop(name)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def served(store_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """The service, with every pipeline launched over HTTP and by its trigger."""
    project = copied(tmp_path_factory.mktemp("projects"), triggers=True)
    quick: dict[str, Any] = {"workers": 4, "warm_workers": 2, "drain_s": 0, "kill_grace_s": 1, "inline": True}
    app = create_app(load(project, database_url=store_url, **quick))
    ready: asyncio.Future[Served] = asyncio.get_running_loop().create_future()
    done = asyncio.Event()

    async def own() -> None:  # enters and leaves in one task, which a fixture's two halves do not
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://localhost:8000", timeout=60) as http,
        ):
            ready.set_result(Served(app.state.engine, http, await _ask_for_all(http)))
            await done.wait()

    owner = asyncio.create_task(own())
    await asyncio.wait({owner, ready}, return_when=asyncio.FIRST_COMPLETED)
    if owner.done():
        owner.result()
    yield ready.result()
    done.set()
    await owner


async def _ask_for_all(http: httpx.AsyncClient) -> dict[str, int]:
    found = {}
    for one in all_expected():
        if one.goes("api"):
            for uuid in (one.uuid, f"{one.uuid}_inline") if one.keys.get("inline") else (one.uuid,):
                found[uuid] = await start(http, one, uuid)
    return found


async def start(http: httpx.AsyncClient, one: Expected, uuid: str = "") -> int:
    """Launch over HTTP, without waiting; the run."""
    body = {"variables": one.keys.get("variables", {})}
    answer = await http.post(f"{V1}/{uuid or one.uuid}/pipeline_runs", json=body)
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])
