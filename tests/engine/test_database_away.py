"""What waits for the database to come back, and goes on then."""

from typing import Any

import pytest

from app.errors import StoreUnavailable
from app.executors.base import BlockCall, BlockResult
from app.models.rows import RunRow
from app.models.states import RunStatus
from app.scheduler import fleet
from app.scheduler.launch import LaunchRequest
from app.scheduler.requests import Requests
from app.store import runs
from tests.engine.conftest import Play, World, done, failed


async def test_a_question_waits_until_the_database_is_back(world: World) -> None:
    """The block cannot know better than to fail, and its run with it."""
    world.pipeline("asked", {"only": []})
    async with world.serving() as engine:
        away = [StoreUnavailable("away"), StoreUnavailable("still")]

        async def launch(*args: Any, **kwargs: Any) -> RunRow:
            if away:
                raise away.pop()
            return await engine.launch(*args, **kwargs)

        own = engine.triggers.named, engine.secrets.value, engine.settings.artifacts
        requests = Requests(engine.db, engine.catalogue, launch, engine.wait, *own)
        run, _ = await world.run(engine, "asked")
        reply = await requests.answer(run, "only:0:1", "trigger_pipeline", {"pipeline_uuid": "asked"})
        assert reply["value"]["pipeline_uuid"] == "asked"
        assert await engine.wait(reply["value"]["id"], 20)
    assert not away


async def test_a_run_that_cannot_be_read_goes_on_when_the_database_is_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No pass looks after it here: whoever was to go on with it tries again."""
    monkeypatch.setattr(fleet, "AGAIN_S", 0.01)
    world.pipeline("waits", {"look": {"upstream_blocks": [], "retry_config": {"retries": 1, "delay": 0.1}}})
    async with world.serving() as engine:
        read, away = engine.db.read, [StoreUnavailable("away"), StoreUnavailable("still")]

        async def unsteady(fn: Any, *args: Any, **kwargs: Any) -> Any:
            if fn is runs.load and away:
                raise away.pop()
            return await read(fn, *args, **kwargs)

        monkeypatch.setattr(engine.db, "read", unsteady)
        world.executor.plays["look"] = fails_once()
        launched = await engine.launch(LaunchRequest(pipeline_uuid="waits"))
        assert await engine.wait(launched.id, 20)
        run, _ = await world.look(engine, launched.id)
    assert (run.status, away) == (RunStatus.COMPLETED, [])


def fails_once() -> Play:
    """A play whose first attempt fails: the run is parked until the second."""

    async def play(call: BlockCall) -> BlockResult:
        return failed() if call.attempt == 1 else done(1)

    return play
