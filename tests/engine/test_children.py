"""Pipelines that start pipelines, with real workers: the brief's samples as they stand, cancel, limits, depth."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app import clock
from app.models.states import BlockStatus, Cause, RunStatus
from app.scheduler.build import build_engine
from app.scheduler.engine import Engine, running
from app.scheduler.launch import LaunchRequest
from app.settings import Settings
from app.store import limits, logs, runs, schedules
from tests.invariants import assert_hold

SAMPLE = """\
from mage_ai.orchestration.triggers.api import trigger_pipeline

if 'data_exporter' not in globals():
    from mage_ai.data_preparation.decorators import data_exporter

@data_exporter
def trigger_downstream_pipeline(*args, **kwargs):
    # Trigger another pipeline when this one completes
    pipeline_run = trigger_pipeline(
        'downstream_pipeline',
        variables={'upstream_date': kwargs['execution_date']},
    )
    return {'pipeline_run_id': pipeline_run.id}
"""

WAITS = """\
from mage_ai.orchestration.triggers.api import trigger_pipeline

# Trigger and wait for completion
@custom
def wait(*args, **kwargs):
    pipeline_run = trigger_pipeline(
        pipeline_uuid=kwargs.get('child', 'downstream_pipeline'),
        variables={'date': '2024-01-01'},
        check_status=True,
        poll_interval=60,  # Check every 60 seconds
        error_on_failure=True,
    )
    return [pipeline_run.id, pipeline_run.status]
"""


def block(kind: str, name: str) -> str:
    return f"- {{uuid: {name}, type: {kind}, language: python, upstream_blocks: []}}\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "shop"
    files = {
        "metadata.yaml": "name: shop\n",
        "custom/child.py": "@custom\ndef f(*args, **kwargs):\n    return kwargs.get('upstream_date')\n",
        "custom/wait.py": WAITS,
        "custom/bad.py": "@custom\ndef f(*args, **kwargs):\n    raise ValueError('no')\n",
        "custom/hang.py": "import time\n@custom\ndef f(*args, **kwargs):\n    time.sleep(60)\n",
        "custom/self_call.py": WAITS.replace("kwargs.get('child', 'downstream_pipeline')", "'loop'"),
        "data_exporters/sample.py": SAMPLE,
        "custom/named.py": (
            "from mage_ai.orchestration.triggers.api import trigger_pipeline\n"
            "@custom\ndef f(*args, **kwargs):\n"
            "    runs = [trigger_pipeline('downstream_pipeline', {'n': n}, schedule_name='by hand') for n in (1, 2)]\n"
            "    return [run.pipeline_schedule_id for run in runs]\n"
        ),
        "custom/looks.py": (
            "from mage_ai.orchestration.run_status_checker import check_status\n"
            "@custom\ndef f(*args, **kwargs):\n"
            "    return check_status('downstream_pipeline', kwargs['execution_date'], hours=1)\n"
        ),
    }
    pipelines = {
        "downstream_pipeline": block("custom", "child"),
        "sample": block("data_exporter", "sample"),
        "waiting": block("custom", "wait"),
        "bad": block("custom", "bad"),
        "hang": block("custom", "hang"),
        "loop": block("custom", "self_call"),
        "looks": block("custom", "looks"),
        "named": block("custom", "named"),
    }
    for uuid, blocks in pipelines.items():
        files[f"pipelines/{uuid}/metadata.yaml"] = (
            f"uuid: {uuid}\nname: {uuid}\ntype: python\nblocks:\n{blocks}"
        )
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@asynccontextmanager
async def serving(project: Path, url: str, workers: int = 2) -> AsyncIterator[Engine]:
    settings = Settings(
        project=project, database_url=url, workers=workers, warm_workers=1, drain_s=0, kill_grace_s=0.5
    )
    engine = build_engine(settings, scheduling=False)
    async with running(engine):
        yield engine
        await assert_hold(engine.db)


async def end(engine: Engine, uuid: str, **variables: object) -> tuple[RunStatus, list[object], str]:
    run = await engine.launch(LaunchRequest(pipeline_uuid=uuid, variables=variables))
    assert await engine.wait(run.id, 30)
    ended = await engine.db.read(runs.get, run.id)
    assert ended is not None
    (row,) = await engine.db.read(runs.blocks, run.id)
    text = "\n".join(line.text for line in await engine.db.read(logs.page, run.id, after=None, limit=100))
    return ended.status, [output.get("value") for output in row.outputs], text


async def test_the_briefs_sample_starts_the_pipeline_at_once(project: Path, sqlite_url: str) -> None:
    async with serving(project, sqlite_url) as engine:
        status, outputs, _ = await end(engine, "sample")
        assert status is RunStatus.COMPLETED
        child_id = outputs[0]["pipeline_run_id"]  # type: ignore[index]
        assert await engine.wait(child_id, 20)
        child = await engine.db.read(runs.get, child_id)
        assert child is not None
        assert (child.status, child.cause, child.depth) == (RunStatus.COMPLETED, Cause.PIPELINE, 1)
        parent = await engine.db.read(runs.get, child.parent_run_id or 0)
        assert parent is not None
        assert child.variables["upstream_date"] == parent.execution_date.isoformat()


async def test_a_parent_waits_for_its_child_and_sees_its_end(project: Path, database_url: str) -> None:
    async with serving(project, database_url, workers=1) as engine:
        status, outputs, text = await end(engine, "waiting")
        assert (status, outputs[1]) == (RunStatus.COMPLETED, "completed")
        assert f"Pipeline run {outputs[0]} for pipeline downstream_pipeline:" in text


async def test_a_failed_child_is_an_error_in_its_parent(project: Path, sqlite_url: str) -> None:
    async with serving(project, sqlite_url) as engine:
        status, _, text = await end(engine, "waiting", child="bad")
        assert status is RunStatus.FAILED
        assert "for pipeline bad: failed" in text


async def test_an_unknown_child_is_an_error_that_says_so(project: Path, sqlite_url: str) -> None:
    async with serving(project, sqlite_url) as engine:
        status, _, text = await end(engine, "waiting", child="nope")
        assert status is RunStatus.FAILED
        assert "PipelineNotFound: there is no pipeline 'nope'" in text


async def test_cancel_goes_down(project: Path, sqlite_url: str) -> None:
    async with serving(project, sqlite_url) as engine:
        parent = await engine.launch(LaunchRequest(pipeline_uuid="waiting", variables={"child": "hang"}))
        async with asyncio.timeout(20):
            while len(found := await engine.db.read(runs.page, limit=5, status=["running"])) < 2:
                await asyncio.sleep(0.02)
        await engine.cancel(parent.id)
        for run in found:
            assert await engine.wait(run.id, 10)
            ended = await engine.db.read(runs.get, run.id)
            assert ended is not None
            assert ended.status is RunStatus.CANCELLED


async def test_pipelines_that_call_each_other_in_a_circle_end(project: Path, sqlite_url: str) -> None:
    async with serving(project, sqlite_url) as engine:
        status, _, _ = await end(engine, "loop")
        assert status is RunStatus.FAILED
        found = await engine.db.read(runs.page, limit=50)
        assert max(run.depth for run in found) == 10
        deepest = next(run for run in found if run.depth == 10)
        text = "\n".join(
            line.text for line in await engine.db.read(logs.page, deepest.id, after=None, limit=50)
        )
        assert "10 deep" in text


async def test_a_child_that_could_never_start_is_refused_at_once(project: Path, sqlite_url: str) -> None:
    definition = project / "pipelines" / "loop" / "metadata.yaml"
    limit = "concurrency_config: {pipeline_run_limit_all_triggers: 1}\n"
    definition.write_text(definition.read_text() + limit)
    async with serving(project, sqlite_url) as engine:
        await engine.passes.sync(force=True)
        status, _, text = await end(engine, "loop")
        assert status is RunStatus.FAILED
        assert "allows 1 run(s) at once" in text
        assert len(await engine.db.read(runs.page, limit=5)) == 1


async def test_many_waiting_parents_on_two_workers_under_a_global_limit_all_end(
    project: Path, database_url: str
) -> None:
    async with serving(project, database_url) as engine:
        await engine.db.write(limits.set_limit, "global", 4, now=clock.now())
        parents = await asyncio.gather(
            *(engine.launch(LaunchRequest(pipeline_uuid="waiting")) for _ in range(64))
        )
        assert all(await asyncio.gather(*(engine.wait(run.id, 60) for run in parents)))
        found = await engine.db.read(runs.page, limit=200)
        assert len(found) == 128
        assert {run.status for run in found} == {RunStatus.COMPLETED}


async def test_check_status_sees_the_newest_run_in_its_window(project: Path, sqlite_url: str) -> None:
    async with serving(project, sqlite_url) as engine:
        assert (await end(engine, "looks"))[1] == [False]
        await end(engine, "downstream_pipeline")
        assert (await end(engine, "looks"))[1] == [True]
        blocks = await engine.db.read(runs.blocks, 1)
        assert blocks[0].status is BlockStatus.COMPLETED


async def test_a_named_trigger_is_made_once_and_its_runs_belong_to_it(project: Path, sqlite_url: str) -> None:
    async with serving(project, sqlite_url) as engine:
        status, outputs, _ = await end(engine, "named")
        assert status is RunStatus.COMPLETED
        (trigger,) = await engine.db.read(schedules.page, limit=5)
        assert outputs == [trigger.id, trigger.id]
        assert (trigger.name, trigger.schedule_type.value) == ("by hand", "api")
