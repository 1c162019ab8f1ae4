"""An engine with everything it stands on, made from settings: the same for the service and the command line."""

from collections.abc import Sequence

from app.executors.base import Executor
from app.executors.inline import InlineExecutor
from app.executors.pool import WorkerPool
from app.pipelines.catalogue import Catalogue
from app.scheduler import timetable
from app.scheduler.engine import Engine
from app.settings import Settings, environment


def build_engine(settings: Settings, *, scheduling: bool = True, borrow: Settings | None = None) -> Engine:
    """An engine that is not running yet.

    `scheduling=False` leaves the triggers alone; `borrow` is a service whose outputs a single block may read.
    """
    catalogue = Catalogue(settings.project, {**environment(), "ENV": settings.env}, timetable.parse)

    def executors(node_id: str, dead: Sequence[str]) -> tuple[Executor, Executor | None]:
        workers = WorkerPool(
            node_id=node_id,
            project=settings.project,
            workers=settings.workers,
            warm=settings.warm_workers,
            python=settings.python or catalogue.project.python,
            kill_grace_s=settings.kill_grace_s,
            sweep=dead,
        )
        inline = InlineExecutor(project=settings.project, limit=settings.run_slots)
        return workers, inline if settings.inline else None

    return Engine(settings, catalogue, make_executors=executors, scheduling=scheduling, borrow=borrow)
