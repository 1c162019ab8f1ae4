"""An engine with everything it stands on, made from settings: the same for the service and the command line."""

from collections.abc import Sequence

from app import failpoints
from app.errors import StartRefused
from app.executors.base import Executor
from app.executors.inline import InlineExecutor
from app.executors.pool import WorkerPool
from app.scheduler.catalogues import catalogue_of
from app.scheduler.engine import Engine
from app.settings import Settings
from app.store.opening import require_safe_place


def silence_of(lease_s: float) -> float:
    """Seconds without a word from the service after which its warden kills user code: before its lease can end.

    A renewal may be a quarter of the lease older than the last word, and the beat is a second.

    >>> silence_of(20), silence_of(5), silence_of(2)
    (5.0, 2.5, 1.5)
    """
    return min(5.0, max(1.5, lease_s / 2))


def build_engine(settings: Settings, *, scheduling: bool = True, borrow: Settings | None = None) -> Engine:
    """An engine that is not running yet.

    `scheduling=False` leaves the triggers alone; `borrow` is a service whose outputs a single block may read.
    Raises StartRefused for a SQLite file on a network file system, and for failpoints outside of tests.
    """
    _arm(settings)
    require_safe_place(settings.store_url, network_allowed=settings.sqlite_on_network)
    catalogue = catalogue_of(settings.project, settings.env)

    def executors(node_id: str, dead: Sequence[str]) -> tuple[Executor, Executor | None]:
        workers = WorkerPool(
            node_id=node_id,
            project=settings.project,
            workers=settings.workers,
            warm=settings.warm_workers,
            python=settings.python or catalogue.project.python,
            kill_grace_s=settings.kill_grace_s,
            silence_s=silence_of(settings.lease_s),
            memory=settings.block_memory,
            sweep=dead,
        )
        inline = InlineExecutor(project=settings.project, limit=settings.run_slots)
        return workers, inline if settings.inline else None

    return Engine(settings, catalogue, make_executors=executors, scheduling=scheduling, borrow=borrow)


def _arm(settings: Settings) -> None:
    if not settings.failpoints:
        return
    if not settings.testing:
        raise StartRefused(
            "RUNWRIGHT_FAILPOINTS is set: it kills and fails this service on purpose",
            hint="unset it; a test of the service says RUNWRIGHT_TESTING=true as well",
        )
    try:
        failpoints.arm(settings.failpoints)
    except ValueError as error:
        raise StartRefused(f"RUNWRIGHT_FAILPOINTS: {error}") from error
