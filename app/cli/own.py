"""The command line's own database and artifacts, apart from a service's, so that both may work at once.

They are under `cli/` of the home folder. A second `run` beside the first takes the next folder (`cli/2` …), since
a SQLite file has one owner.
"""

import asyncio
from typing import Final

from app import artifacts, clock
from app.errors import StartRefused
from app.models.states import RUN_TERMINAL, RunStatus
from app.scheduler.engine import Engine
from app.settings import Settings
from app.store import migrate, ownership, pruning, runs
from app.store.opening import open_database
from app.store.sqlite import take_lock

#: Runs of the same project that may go on side by side.
SIDE_BY_SIDE: Final = 9
#: Runs kept of each pipeline.
KEPT: Final = 5


def own_settings(service: Settings) -> Settings:
    """The service's settings with a home and a database that nobody else has open."""
    base = service.home / "cli"
    for number in range(1, SIDE_BY_SIDE + 1):
        home = base if number == 1 else base / str(number)
        try:
            take_lock(home / "runwright.db").close()
        except StartRefused:
            continue
        return service.model_copy(update={"home": home, "database_url": ""})
    raise StartRefused(
        f"{SIDE_BY_SIDE} runs of this project are going on already.",
        hint="Wait for one, or serve the project: runwright start",
    )


async def end_leftovers(own: Settings) -> None:
    """Cancel what a `run` that was killed has left behind: nobody waits for it any more.

    Before the engine starts, which would go on with it.
    """
    await asyncio.to_thread(migrate.upgrade, own.store_url)
    database = open_database(own.store_url)
    await database.open()
    try:
        live = [status for status in RunStatus if status not in RUN_TERMINAL]
        for run in await database.read(runs.page, status=live, limit=100):
            await database.write(ownership.cancel, run.id, reason="left behind", now=clock.now())
    finally:
        await database.close()


async def forget_old_runs(engine: Engine, pipeline_uuid: str) -> None:
    """Keep the newest runs of a pipeline; they are what `--block-uuid` takes its inputs from."""
    edge = await engine.db.read(pruning.edge, pipeline_uuid, before=None, keep=KEPT)
    if edge is None:
        return
    old = await engine.db.read(pruning.old_runs, pipeline_uuid, before=edge, limit=100)
    ids = [run_id for _ended, run_id in old]
    await engine.db.write(pruning.forget_runs, ids, now=clock.now())
    graves = await engine.db.read(pruning.tombstones, before=clock.now(), limit=1000)
    gone = await asyncio.to_thread(artifacts.remove, engine.settings.artifacts, graves)
    await engine.db.write(pruning.settle, gone, now=clock.now())
