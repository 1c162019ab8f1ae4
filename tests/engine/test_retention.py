"""The service forgets by itself: what the settings, the project and a pipeline say is kept, and nothing else goes."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app import clock
from app.executors.base import BlockCall, BlockResult
from app.models.pipeline import Keep
from app.models.states import Cause, Outcome, RunStatus
from app.scheduler import pruner as pruner_module
from app.scheduler import retention
from app.scheduler.engine import Engine
from app.scheduler.pruner import Pruned, Pruner
from app.scheduler.retention import Kept
from app.settings import Settings, load
from app.store import logs, pruning, runs
from tests.engine.conftest import World, failed

NOW = 1e-9  # days: what is over is old
NEVER = timedelta(0)


def settings(**values: Any) -> Settings:
    return Settings(project=Path("/p"), **values)


def test_a_pipeline_says_it_over_the_settings_key_by_key() -> None:
    day = timedelta(days=1)
    assert retention.kept(settings(), Keep()) == Kept(runs=90 * day, newest=0, logs=30 * day, outputs=None)
    own = Keep(runs_days=0, runs=5, logs_days=2)
    assert retention.kept(settings(keep_outputs_days=7), own) == Kept(
        runs=None, newest=5, logs=2 * day, outputs=7 * day
    )
    mage = 90 * 86_400.0
    assert retention.kept(settings(), Keep(), mage_s=mage).outputs == 90 * day
    assert retention.kept(settings(keep_outputs_days=7), Keep(), mage_s=mage).outputs == 7 * day
    assert retention.kept(settings(), Keep(outputs_days=0), mage_s=mage).outputs is None


def test_the_project_file_may_say_it_too() -> None:
    found = load(Path("/p"), section={"keep_runs_days": 7, "keep_runs_per_pipeline": 100})
    assert (found.keep_runs_days, found.keep_runs_per_pipeline) == (7.0, 100)


@pytest.mark.parametrize("took", [1e-9, 0.001, 0.02, 3.0])
def test_a_batch_never_takes_more_than_its_share(took: float) -> None:
    assert took <= (took + retention.pause(took)) * retention.SHARE + 1e-12 or retention.pause(took) == 2.0
    sizes = [500]
    for _ in range(12):
        sizes.append(retention.next_size(sizes[-1], sizes[-1], took))
    assert all(1 <= size <= retention.LARGEST for size in sizes)
    assert sizes[-1] == (1 if took > retention.AIM_S else retention.LARGEST)


@pytest.mark.parametrize("each_s", [1e-7, 0.0001, 0.0005, 0.02])
def test_batches_come_to_the_time_they_aim_at_and_a_few_rows_do_not_lead_astray(each_s: float) -> None:
    pace = retention.Pace()
    for _ in range(12):
        pace.learn(pace.size, pace.size * each_s)
    assert pace.size in (1, retention.LARGEST) or pace.size * each_s <= retention.AIM_S <= retention.MOST_S
    settled = pace.size
    for _ in range(20):  # passes that find next to nothing
        pace.learn(0, each_s)
    assert pace.size <= settled


async def with_file(call: BlockCall) -> BlockResult:
    """A block that leaves a file, as the child side does."""
    place = call.artifacts / call.artifact_dir
    place.mkdir(parents=True)
    (place / "output_0").write_bytes(b"x" * 100)
    ref = {"kind": "pickle", "path": f"{call.artifact_dir}/output_0", "size": 100}
    return BlockResult(Outcome.COMPLETED, outputs=[ref])


def pruner(engine: Engine) -> Pruner:
    """One that need not wait."""
    found = engine.passes.pruner
    return Pruner(
        engine.db, engine.catalogue, engine.settings, engine.node_id, share=1.0, grace=found._grace * 0
    )


def folders(world: World) -> set[str]:
    return {path.name for path in (world.folder / ".runwright" / "artifacts").iterdir()}


async def test_runs_go_with_logs_and_files_and_the_newest_stay(world: World) -> None:
    world.pipeline("etl", {"a": [], "b": ["a"]})
    world.pipeline("other", {"a": []}, retention={"runs": 3})
    world.executor.plays["a"] = with_file
    async with world.serving(keep_runs_per_pipeline=2) as engine:
        etl = [(await world.run(engine, "etl"))[0].id for _ in range(5)]
        other = [(await world.run(engine, "other"))[0].id for _ in range(5)]
        assert folders(world) == {str(run_id) for run_id in (*etl, *other)}
        assert await pruner(engine).run() == Pruned(runs=5, log_chunks=8, folders=5)
        stay = [*etl[3:], *other[2:]]
        assert {run.id for run in await engine.db.read(runs.page, limit=50)} == set(stay)
        assert folders(world) == {str(run_id) for run_id in stay}
        assert await pruner(engine).run() == Pruned(), "nothing more is due"
        assert len(await engine.db.read(logs.page, etl[4], after=None, limit=9)) == 2


async def test_the_service_does_it_by_itself_and_in_its_own_time(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving(keep_runs_per_pipeline=1) as engine:
        for _ in range(3):
            await world.run(engine, "etl")
        await engine.passes.forget()
        assert len(await engine.db.read(runs.page, limit=50)) == 1
        graves = await engine.db.read(pruning.tombstones, before=clock.now(), limit=9)
        assert len(graves) == 2, "files wait a minute for who may be launching from them"


async def test_logs_and_outputs_go_before_their_run(world: World) -> None:
    world.pipeline("etl", {"a": [], "b": ["a"]})
    world.executor.plays["a"] = with_file
    async with world.serving(keep_logs_days=NOW, keep_outputs_days=NOW) as engine:
        first, _ = await world.run(engine, "etl")
        world.executor.plays["b"] = lambda call: asyncio.sleep(0, failed())
        broken, _ = await world.run(engine, "etl")
        del world.executor.plays["b"]
        done = await pruner(engine).run()
        assert (done.runs, done.log_chunks > 0, done.outputs, done.folders) == (0, True, 1, 1)
        assert await engine.db.read(logs.page, first.id, after=None, limit=9) == []
        assert folders(world) == {str(first.id)}, "the newest completed run is what others take inputs from"

        world.executor.calls.clear()
        retried = await engine.retry(broken.id)
        assert await engine.wait(retried.id, 20)
        assert world.executor.ran() == ["a", "b"], "what a has left is gone, so a runs again"


async def test_outputs_that_were_needed_at_the_last_pass_go_at_a_later_one(world: World) -> None:
    world.pipeline("etl", {"a": [], "b": ["a"]})
    world.executor.plays["a"] = with_file
    async with world.serving(keep_outputs_days=NOW) as engine:
        newest, _ = await world.run(engine, "etl")
        world.executor.plays["b"] = lambda call: asyncio.sleep(0, failed())
        await world.run(engine, "etl")
        del world.executor.plays["b"]
        one = pruner(engine)
        assert (await one.run()).outputs == 1 and folders(world) == {str(newest.id)}
        newer, _ = await world.run(engine, "etl")
        assert (await one.run()).outputs == 1 and folders(world) == {str(newer.id)}


async def test_files_that_resist_do_not_keep_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruner_module, "_PAGE", 1)
    world.pipeline("etl", {"a": []})
    world.executor.plays["a"] = with_file
    async with world.serving(keep_runs_per_pipeline=1) as engine:
        first, second, third = [(await world.run(engine, "etl"))[0].id for _ in range(3)]
        place = world.folder / ".runwright" / "artifacts" / str(first)
        place.rename(place.with_name("elsewhere"))
        place.write_text("no folder")
        done = await pruner(engine).run()
    assert (done.runs, done.folders) == (2, 1)
    assert folders(world) == {"elsewhere", str(first), str(third)}, f"{second} is gone"


async def test_a_retry_keeps_what_it_took_over(world: World) -> None:
    world.pipeline("etl", {"a": [], "b": ["a"]})
    world.executor.plays["a"] = with_file
    world.executor.plays["b"] = lambda call: asyncio.sleep(0, failed())
    async with world.serving(keep_runs_days=NOW, keep_outputs_days=NOW) as engine:
        old, _ = await world.run(engine, "etl")
        del world.executor.plays["b"]
        retried = await engine.retry(old.id)
        assert await engine.wait(retried.id, 20)
        assert (await world.look(engine, retried.id))[0].status is RunStatus.COMPLETED
        assert await pruner(engine).run() == Pruned(log_chunks=3)
        (path,) = (world.folder / ".runwright" / "artifacts").rglob("output_0")
        assert path.is_relative_to(world.folder / ".runwright" / "artifacts" / str(old.id))

        await world.run(
            engine, "etl"
        )  # the newest completed run is another now: the chain may go, its end first
        done = await pruner(engine).run()
        assert (done.runs, done.folders) == (2, 2)


async def test_a_live_run_keeps_its_parent_and_the_run_it_retries(world: World) -> None:
    world.pipeline("etl", {"a": []})
    world.executor.plays["a"] = lambda call: asyncio.sleep(0, failed())
    async with world.serving(keep_runs_days=NOW) as engine:
        old, _ = await world.run(engine, "etl")
        hold = asyncio.Event()

        async def waits(call: BlockCall) -> BlockResult:
            await hold.wait()
            return failed()

        world.executor.plays["a"] = waits
        retried = await engine.retry(old.id)
        assert retried.cause is Cause.RETRY
        assert (await pruner(engine).run()).runs == 0
        hold.set()
        assert await engine.wait(retried.id, 20)
        assert (await pruner(engine).run()).runs == 2


async def test_a_pipeline_that_cannot_be_read_loses_nothing(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving(keep_runs_per_pipeline=1) as engine:
        for _ in range(2):
            await world.run(engine, "etl")
        (world.folder / "pipelines" / "etl" / "metadata.yaml").write_text("blocks: {")
        await engine.passes.sync(force=True)
        assert await pruner(engine).run() == Pruned(), "it may have said that all is kept"


async def test_while_another_node_prunes_this_one_does_not(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving(keep_runs_per_pipeline=1) as engine:
        for _ in range(2):
            await world.run(engine, "etl")
        await engine.db.write(pruning.claim, "another", now=clock.now())
        mine = pruner(engine)
        assert await mine.run() == Pruned() and mine.taken == "node another prunes"
        await engine.db.write(pruning.release, "another")
        assert (await mine.run()).runs == 1


_DIES = """
import asyncio, os, signal, sys
from pathlib import Path
from app import artifacts
from app.pipelines.catalogue import Catalogue
from app.scheduler.pruner import Pruner
from app.settings import Settings
from app.store.opening import open_database
from datetime import timedelta

url, folder = sys.argv[1], Path(sys.argv[2])
real = artifacts.shutil.rmtree

def dies(path):
    (next(Path(path).rglob("output_0"))).unlink()  # half done
    os.kill(os.getpid(), signal.SIGKILL)

artifacts.shutil.rmtree = dies

async def main():
    db = open_database(url)
    await db.open()
    catalogue = Catalogue(folder)
    catalogue.refresh()
    settings = Settings(project=folder, database_url=url, keep_runs_per_pipeline=1)
    await Pruner(db, catalogue, settings, "one", share=1.0, grace=timedelta(0)).run()

asyncio.run(main())
"""


async def test_a_kill_between_rows_and_files_leaves_nothing_behind(world: World) -> None:
    world.pipeline("etl", {"a": []})
    world.executor.plays["a"] = with_file
    async with world.serving() as engine:
        ids = [(await world.run(engine, "etl"))[0].id for _ in range(3)]
    killed = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", _DIES, world.url, str(world.folder)], env=dict(os.environ)
    )
    assert killed.returncode == -signal.SIGKILL
    assert folders(world) == {str(run_id) for run_id in ids}, "rows are gone, files are not"
    async with world.serving(keep_runs_per_pipeline=1) as engine:
        assert [run.id for run in await engine.db.read(runs.page, limit=9)] == ids[2:]
        next_ = Pruner(engine.db, engine.catalogue, engine.settings, "one", share=1.0, grace=NEVER)
        assert await next_.run() == Pruned(folders=2)
        assert folders(world) == {str(ids[2])}


async def test_a_file_of_sqlite_is_filled_again_before_it_grows(sqlite_url: str, tmp_path: Path) -> None:
    path = sqlite_url.removeprefix("sqlite:///")
    (tmp_path / "metadata.yaml").write_text("name: p\n")
    world = World(tmp_path, sqlite_url)
    world.pipeline("etl", {"a": []}, retention={"runs": 1})

    async def loud(call: BlockCall) -> BlockResult:
        return failed("x" * 20_000)

    world.executor.plays["a"] = loud
    sizes = []
    async with world.serving() as engine:
        for _ in range(3):
            for _ in range(30):
                await world.run(engine, "etl")
            await pruner(engine).run()
            sizes.append(await asyncio.to_thread(_pages, path))
    assert sizes[0] > 150
    assert max(sizes) < 1.2 * sizes[0], "thrice as much was written"


def _pages(path: str) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("PRAGMA page_count").fetchone()[0])


async def test_it_can_be_foreseen(world: World) -> None:
    from app.scheduler.foreseen import Foreseen, foresee

    world.pipeline("etl", {"a": []})
    world.executor.plays["a"] = with_file
    async with world.serving(keep_runs_per_pipeline=1) as engine:
        for _ in range(3):
            await world.run(engine, "etl")
        (found,), slots = await foresee(engine.db, pruner(engine), engine.settings)
        assert slots == 0 and found.log_bytes > 50
        assert found == Foreseen("etl", runs=2, block_runs=2, log_bytes=found.log_bytes, file_bytes=200)
        assert len(await engine.db.read(runs.page, limit=9)) == 3
