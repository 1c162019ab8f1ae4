"""Projects written for Mage, served: each pipeline started over HTTP and by a trigger that is due, with one result."""

import asyncio

import pytest

from tests.invariants import assert_hold
from tests.projects.conftest import Served, start
from tests.projects.expected import Expected, all_expected, going

pytestmark = pytest.mark.asyncio(loop_scope="module")

ALL = all_expected()


@going("api")
async def test_over_http(served: Served, one: Expected) -> None:
    one.check(await served.found(served.asked[one.uuid]), "api")


@going("schedule")
async def test_by_a_trigger_that_is_due(served: Served, one: Expected) -> None:
    run = await served.triggered(one.uuid)
    one.check(await served.found(run.id), "schedule")


@pytest.mark.parametrize("one", [o for o in ALL if o.keys.get("inline")], ids=lambda one: str(one.uuid))
async def test_on_the_services_own_loop(served: Served, one: Expected) -> None:
    twin = f"{one.uuid}_inline"
    one.check(await served.found(served.asked[twin]), "api")
    one.check(await served.found((await served.triggered(twin)).id), "schedule")


async def test_a_run_that_is_cancelled_tells_its_callbacks(served: Served) -> None:
    (one,) = [one for one in ALL if one.uuid == "callbacks_of_cancel"]
    run_id = await start(served.http, one)
    async with asyncio.timeout(30):
        while "working" not in (await served.http.get(f"/api/v1/pipeline_runs/{run_id}/logs")).text:
            await asyncio.sleep(0.05)
    await served.http.post(f"/api/v1/pipeline_runs/{run_id}/cancel")
    one.check(await served.found(run_id), "api")


async def test_everything_that_ran_keeps_the_invariants(served: Served) -> None:
    for run_id in served.asked.values():
        assert await served.engine.wait(run_id, 60)
    await assert_hold(served.engine.db)
