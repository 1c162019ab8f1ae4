"""The service forgets what is past its time: little by little, one node at a time, and out of everybody's way.

A batch is one short transaction, and its size follows what the last one took. Between two the writer is left to
others for three times as long. A kill loses nothing but the rest of a batch: the next pass begins where rows are.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, TypeVar

from app import artifacts, clock
from app.errors import PipelineInvalid, PipelineNotFound
from app.models.pipeline import Keep
from app.pipelines.catalogue import Catalogue
from app.scheduler import retention
from app.scheduler.retention import Kept, Pace
from app.settings import Settings
from app.store import idempotency, pruning
from app.store.db import Database
from app.store.pruning import FIRST_RUN, RunAt

log = logging.getLogger(__name__)
#: What a batch says: how many rows are gone, or which runs.
T = TypeVar("T", int, list[int])

#: A file is deleted so long after its row: what was being launched from it meanwhile then names it.
GRACE: Final = timedelta(seconds=60)
#: Days that the key of a request is remembered.
KEYS: Final = timedelta(days=7)
#: Runs that are looked for or whose files are deleted at once.
_PAGE: Final = 100


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a pass has forgotten, or would."""

    runs: int = 0
    log_chunks: int = 0
    slots: int = 0
    #: runs that stay, whose outputs in files are gone
    outputs: int = 0
    #: folders of files deleted
    folders: int = 0


class Pruner:
    """What one node forgets. `share` of the time is its at most, 1 where nobody else needs the database."""

    def __init__(
        self,
        db: Database,
        catalogue: Catalogue,
        settings: Settings,
        node_id: str,
        *,
        share: float = retention.SHARE,
        grace: timedelta = GRACE,
    ) -> None:
        self._db, self._catalogue, self._settings, self._node_id = db, catalogue, settings, node_id
        self._share, self._grace = share, grace
        #: by what is forgotten; of runs, by pipeline: those of one are as large as each other
        self.paces: defaultdict[str, Pace] = defaultdict(Pace)
        #: how far logs of a pipeline are forgotten: no need to look there again
        self._seen: dict[str, RunAt] = {}
        self.done = Pruned()
        #: who prunes instead, as far as the last pass knows
        self.taken: str | None = None

    async def run(self) -> Pruned:
        """Forget all that is due; nothing while another node does."""
        self.done, self.taken = Pruned(), None
        try:
            await self._delete_files()
            for pipeline in await self._db.read(pruning.pipelines):
                if (kept := self.kept(pipeline)) is not None:
                    await self._pipeline(pipeline, kept)
            await self._slots()
            await self._keys()
            await self._delete_files()
        except pruning.Claimed as taken:
            self.taken = str(taken)
            return self.done
        await self._db.write(pruning.release, self._node_id)
        if self.done != Pruned():
            log.info(
                "pruned: %d runs, %d chunks of logs, outputs of %d runs, %d slots; %d folders deleted",
                *(
                    self.done.runs,
                    self.done.log_chunks,
                    self.done.outputs,
                    self.done.slots,
                    self.done.folders,
                ),
            )
        return self.done

    def kept(self, pipeline_uuid: str) -> Kept | None:
        """How long a pipeline's past is kept; None for one whose file cannot be read, since it may say more."""
        try:
            keep = self._catalogue.get(pipeline_uuid).keep
        except PipelineInvalid:
            return None
        except PipelineNotFound:
            keep = Keep()
        return retention.kept(self._settings, keep, mage_s=self._catalogue.project.retention_s)

    async def _pipeline(self, uuid: str, kept: Kept) -> None:
        now = clock.now()
        before, keep = retention.ago(now, kept.runs), kept.newest
        edge = await self._db.read(pruning.edge, uuid, before=before, keep=keep)
        ages = [at for at in (edge, retention.ago(now, kept.logs)) if at is not None]
        if ages:  # logs first, in pieces: what is left of a run is then small
            await self._logs(uuid, max(ages))
        if (outputs := retention.ago(now, kept.outputs)) is not None:
            await self._outputs(uuid, outputs)
        if edge is not None:
            # What points at others goes first, so that those may go in the next round.
            while await self._runs(uuid, edge):
                pass

    async def _batch(self, kind: str, forget: Callable[..., T], *args: Any) -> T:
        began = clock.monotonic()
        took, found = await self._db.write(pruning.batch, self._node_id, forget, *args, now=clock.now())
        self.paces[kind].learn(found if isinstance(found, int) else len(found), took)
        await asyncio.sleep(retention.pause(clock.monotonic() - began, self._share))
        return found

    async def _runs(self, uuid: str, edge: datetime) -> int:
        after, count, kind = FIRST_RUN, 0, f"runs of {uuid}"
        while found := await self._find(pruning.old_runs, uuid, edge, after, self.paces[kind].size):
            gone = await self._batch(kind, pruning.forget_runs, [run_id for _at, run_id in found])
            after, count = found[-1], count + len(gone)
            self.done = replace(self.done, runs=self.done.runs + len(gone))
        return count

    async def _logs(self, uuid: str, edge: datetime) -> None:
        after, pace = self._seen.get(uuid, FIRST_RUN), self.paces["logs"]
        while found := await self._find(pruning.with_logs, uuid, edge, after, _PAGE):
            ids, size = [run_id for _at, run_id in found], pace.size
            while (count := await self._batch("logs", pruning.forget_logs, ids, size)) == size:
                self.done = replace(self.done, log_chunks=self.done.log_chunks + count)
                size = pace.size
            self.done = replace(self.done, log_chunks=self.done.log_chunks + count)
            after = self._seen[uuid] = found[-1]

    async def _outputs(self, uuid: str, edge: datetime) -> None:
        # From the first on each time: what a newer run had taken over, or was the newest, may be due now.
        after, kind = FIRST_RUN, f"outputs of {uuid}"
        while found := await self._find(pruning.with_files, uuid, edge, after, self.paces[kind].size):
            gone = await self._batch(kind, pruning.forget_outputs, [run_id for _at, run_id in found])
            self.done = replace(self.done, outputs=self.done.outputs + len(gone))
            after = found[-1]

    async def _find(
        self, find: Callable[..., list[RunAt]], uuid: str, edge: datetime, after: RunAt, limit: int
    ) -> list[RunAt]:
        return await self._db.read(partial(find, before=edge, after=after, limit=limit), uuid)

    async def _slots(self) -> None:
        before = retention.ago(clock.now(), retention.days(self._settings.keep_slots_days))
        if before is None:
            return
        after, pace = pruning.FIRST_SLOT, self.paces["slots"]
        while found := await self._db.read(pruning.old_slots, before=before, after=after, limit=pace.size):
            count = await self._batch("slots", pruning.forget_slots, found)
            self.done = replace(self.done, slots=self.done.slots + count)
            after = found[-1]

    async def _keys(self) -> None:
        """The keys of requests that nobody repeats any more."""
        before, pace = clock.now() - KEYS, self.paces["keys"]
        size = pace.size
        while await self._batch("keys", _forget_keys, before, size) == size:
            size = pace.size

    async def _delete_files(self) -> None:
        """Files whose rows are gone, here or on a node that was killed before it came to it."""
        before, after = clock.now() - self._grace, 0
        while ids := await self._db.read(pruning.tombstones, before=before, limit=_PAGE, after=after):
            after = ids[-1]  # past those that resist
            gone = await asyncio.to_thread(artifacts.remove, self._settings.artifacts, ids)
            await self._batch("files", pruning.settle, gone)
            self.done = replace(self.done, folders=self.done.folders + len(gone))


def _forget_keys(tx: Any, before: datetime, limit: int, *, now: datetime) -> int:
    return idempotency.forget(tx, before=before, limit=limit)
