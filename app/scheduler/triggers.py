"""Triggers as callers make, change and fire them. What follows from a definition is `sync.put`'s to say.

A trigger that a file defines is changed in that file; all that a caller may do here is fire it, and have a token
made for it when the file names none.
"""

import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from hashlib import sha256
from hmac import compare_digest
from typing import Any, Final, Protocol

from app import clock
from app.errors import (
    FieldError,
    InvalidInput,
    ManagedByFile,
    NameTaken,
    NotFound,
    PipelineNotFound,
    PreconditionFailed,
    Quarantined,
    ScheduleNotFound,
)
from app.models.rows import RunRow, ScheduleRow
from app.models.states import Cause, ScheduleStatus, ScheduleType
from app.pipelines.catalogue import Catalogue, TriggerEntry
from app.pipelines.triggers import TriggerRules, check_trigger
from app.scheduler import catchup, limiting, mage_payload, outlook, sync, variables
from app.scheduler.launch import LaunchRequest
from app.store import idempotency as keys
from app.store import schedules
from app.store.db import Database, T, Tx
from app.store.idempotency import Idempotency
from app.store.ids import Ids
from app.store.sql import lock_named

_TOKEN_BYTES: Final = 32
#: Compared with when there is nothing to compare with, so that the answer takes as long.
_NOBODY: Final = sha256(secrets.token_bytes(_TOKEN_BYTES)).hexdigest()


class Launch(Protocol):
    """`Engine.launch`."""

    def __call__(
        self, request: LaunchRequest, *, schedule: ScheduleRow | None, idempotency: Idempotency | None
    ) -> Awaitable[RunRow]:
        """Create a run of a trigger."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerDraft:
    """A trigger that a caller wants; the fields are those of an entry of `triggers.yaml`."""

    pipeline_uuid: str
    name: str
    schedule_type: str = ScheduleType.TIME
    schedule_interval: str | None = None
    timezone: str | None = None
    status: str = ScheduleStatus.INACTIVE
    start_time: datetime | None = None
    description: str | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    sla: int | None = None
    tags: tuple[str, ...] = ()


def new_token() -> str:
    """A token that nobody guesses, for a URL or a header."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def hash_of(token: str) -> str:
    """What is kept of a token. It is random and long: a fast hash is enough."""
    return sha256(token.encode("utf-8", "replace")).hexdigest()


class Triggers:
    """The triggers of one engine."""

    def __init__(self, *, db: Database, catalogue: Catalogue, node_id: str, launch: Launch) -> None:
        self._db, self._catalogue, self._node_id, self._launch = db, catalogue, node_id, launch
        self._ids = Ids(db, "pipeline_schedule", size=1)
        #: called when a trigger was changed: its next slot may be another
        self.changed: Callable[[], None] = lambda: None

    async def create(
        self, draft: TriggerDraft, *, idempotency: Idempotency | None = None
    ) -> tuple[ScheduleRow, str | None]:
        """Make a trigger. An API trigger comes with its token, which is shown this once.

        Raises InvalidInput naming every fault, NameTaken, PipelineInvalid. A repeated request gets the trigger
        that the first one has made, without the token.
        """
        self._require_pipeline(draft.pipeline_uuid)
        entry = self._check(draft.pipeline_uuid, asdict(draft))
        token = new_token() if entry.schedule_type is ScheduleType.API else None
        values = sync.columns_of(entry) | ({"token_hash": hash_of(token)} if token else {})
        (schedule_id,) = await self._ids.take()

        def write(tx: Tx) -> tuple[ScheduleRow, str | None]:
            known = keys.claim(tx, idempotency, schedule_id, now=clock.now()) if idempotency else None
            if known is not None:
                return _require(schedules.get(tx, known.effect_id), known.effect_id), None
            lock_named(tx, "triggers")
            _require_free_name(tx, entry)
            sync.put(tx, schedule_id, values, by=self._by(), new=True)
            return _require(schedules.get(tx, schedule_id), schedule_id), token

        return await self._write(write)

    async def _write(self, write: Callable[[Tx], T]) -> T:
        result = await self._db.write(write)
        self.changed()
        return result

    async def named(self, pipeline_uuid: str, name: str) -> ScheduleRow:
        """The trigger of that name; an API trigger is made if there is none (Mage: `trigger_pipeline`)."""
        if (found := await self._db.read(schedules.named, pipeline_uuid, name)) is None:
            draft = TriggerDraft(
                pipeline_uuid=pipeline_uuid,
                name=name,
                schedule_type=ScheduleType.API,
                status=ScheduleStatus.ACTIVE,
            )
            try:
                return (await self.create(draft))[0]
            except NameTaken:  # another block was faster
                return await self.named(pipeline_uuid, name)
        return _require(await self._db.read(schedules.get, found), found)

    async def update(
        self, schedule_id: int, changes: Mapping[str, Any], *, revision: int | None = None
    ) -> ScheduleRow:
        """Change fields of a trigger; the whole is judged as a new one is. An edit never fires the past.

        `revision` is what the caller has seen. Raises ScheduleNotFound, PreconditionFailed, ManagedByFile,
        InvalidInput, NameTaken. Changes that change nothing leave the trigger, and its revision, alone.
        """

        def write(tx: Tx) -> ScheduleRow:
            lock_named(tx, "triggers")  # before the row, as whoever follows the files does
            old = self._editable(tx, schedule_id, revision)
            entry = self._check(old.pipeline_uuid, {**_definition(old), **changes})
            if entry.name != old.name:
                _require_free_name(tx, entry)
            values = sync.columns_of(entry)
            if "timezone" not in changes:
                values["timezone"] = old.timezone  # none is UTC, whatever the project's is by now
            if old.error is not None or any(_plain(getattr(old, n)) != _plain(values[n]) for n in _DEFINED):
                sync.put(tx, schedule_id, values, by=self._by())
            return _require(schedules.get(tx, schedule_id), schedule_id)

        return await self._write(write)

    async def delete(self, schedule_id: int, revision: int | None = None) -> None:
        """Take a trigger out of use and out of sight; its runs and its slots stay."""

        def write(tx: Tx) -> None:
            self._editable(tx, schedule_id, revision)
            sync.put(tx, schedule_id, _deleted(), by=self._by())

        await self._write(write)

    async def pause(self, schedule_id: int) -> ScheduleRow:
        """Stop a trigger from firing; runs that exist go on. One that is inactive is returned unchanged."""
        return await self._set_status(schedule_id, ScheduleStatus.INACTIVE)

    async def resume(self, schedule_id: int, missed: str | None = None) -> ScheduleRow:
        """Let a trigger fire again. What was due meanwhile is skipped, or its latest slot runs, or all of them.

        `missed`: skip, latest or all (as many as its `catch_up_limit`); None is skip, but for the period under way
        when the trigger has `create_initial_pipeline_run`. One that is active is returned unchanged.
        """
        if missed is not None and missed not in catchup.MODES:
            fault = FieldError("/missed", f"must be one of {', '.join(catchup.MODES)}")
            raise InvalidInput(f"missed: {fault.message}", errors=[fault])
        return await self._set_status(schedule_id, ScheduleStatus.ACTIVE, missed)

    async def _set_status(
        self, schedule_id: int, status: ScheduleStatus, missed: str | None = None
    ) -> ScheduleRow:
        def write(tx: Tx) -> ScheduleRow:
            old = self._editable(tx, schedule_id, None)
            if old.status is status:
                return old
            # A trigger that was quarantined is looked at anew.
            anew = {"error": None} if status is ScheduleStatus.ACTIVE else {}
            sync.put(tx, schedule_id, {"status": status, **anew}, by=self._by(), missed=missed)
            return _require(schedules.get(tx, schedule_id), schedule_id)

        return await self._write(write)

    async def missed(self, schedule_id: int) -> catchup.Missed:
        """What a resume of a trigger, now, has to decide about. Raises ScheduleNotFound, InvalidInput."""
        row = await self._db.read(schedules.get, schedule_id)
        return outlook.missed(_require(row, schedule_id), self._catalogue)

    async def shown(self, row: ScheduleRow) -> ScheduleRow:
        """A trigger as people see it, see :func:`app.scheduler.outlook.shown`."""
        return await outlook.shown(self._db, self._catalogue, row)

    async def gone(self) -> list[ScheduleRow]:
        """Triggers whose entries have gone from their files, and that nobody has changed since."""
        known = await self._db.read(schedules.with_digests)
        return [row for row, digest in known if digest == sync.GONE]

    async def prune(self) -> list[ScheduleRow]:
        """Delete the triggers that :meth:`gone` tells of. Their runs and their slots stay."""

        def write(tx: Tx) -> list[ScheduleRow]:
            lock_named(tx, "triggers")
            found = [row for row, digest in schedules.with_digests(tx) if digest == sync.GONE]
            for row in found:
                sync.put(tx, row.id, _deleted(), by=self._by())
            return found

        return await self._write(write)

    async def rotate_token(self, schedule_id: int) -> str:
        """A new token for an API trigger, shown this once; the one before is worthless from now on.

        Also for a trigger of a file that names no token: then the token is the service's to give.
        """
        token = new_token()

        def write(tx: Tx) -> None:
            row = _require(schedules.lock(tx, schedule_id), schedule_id)
            if row.schedule_type is not ScheduleType.API:
                raise InvalidInput(
                    f"trigger {schedule_id} is of type {row.schedule_type}; only an API trigger has a token"
                )
            entry = self._entry_of(row)
            if entry is not None and entry.token_hash is not None:
                raise _managed_by_file(row)
            schedules.set_token_hash(tx, schedule_id, hash_of(token))

        await self._write(write)
        return token

    async def launch(
        self,
        schedule_id: int,
        *,
        variables: Mapping[str, Any] | None = None,
        execution_date: datetime | None = None,
        event_variables: Mapping[str, Any] | None = None,
        idempotency: Idempotency | None = None,
        cause: Cause = Cause.API,
    ) -> RunRow:
        """Fire a trigger now, whatever its type, active or not. `variables` overwrite its own.

        A trigger that allows no more runs (`pipeline_run_limit`, `skip_if_previous_running`) gets one that is
        cancelled at birth with the reason. Raises ScheduleNotFound, Quarantined, and what `Engine.launch` raises.
        """
        row = _require(await self._db.read(schedules.get, schedule_id), schedule_id)
        if row.error is not None:
            raise Quarantined(f"trigger '{row.name}' is quarantined: {row.error}", hint="mend its definition")
        request = LaunchRequest(
            pipeline_uuid=row.pipeline_uuid,
            variables=variables or {},
            execution_date=execution_date,
            event_variables=event_variables or {},
            cause=cause,
        )
        return await self._launch(request, schedule=row, idempotency=idempotency)

    async def launch_by_token(
        self,
        schedule_id: int | None,
        token: str | None,
        payload: object,
        *,
        idempotency: Idempotency | None = None,
    ) -> RunRow:
        """Fire an active API trigger for a caller who shows its token; `payload` as Mage's callers send it.

        Raises one and the same NotFound for an unknown id, another type, an inactive trigger and a wrong token.
        """
        found = None if schedule_id is None else await self._db.read(schedules.with_token_hash, schedule_id)
        row, kept = found or (None, None)
        right = compare_digest(hash_of(token or ""), kept or _NOBODY)
        if row is None or not right or not _takes_calls(row):
            raise NotFound("There is no such API trigger, or the token is not its token.", hint=_TOKEN_HINT)
        asked = mage_payload.read(payload)
        return await self.launch(
            row.id,
            variables=asked.variables,
            execution_date=asked.execution_date,
            event_variables=asked.event_variables,
            idempotency=idempotency,
        )

    def check(self, draft: TriggerDraft) -> TriggerEntry:
        """The trigger that a draft describes. Raises InvalidInput naming every fault."""
        return self._check(draft.pipeline_uuid, asdict(draft))

    def _check(self, pipeline_uuid: str, values: Mapping[str, Any]) -> TriggerEntry:
        """What a caller says, judged by the rules of the file."""
        rules = TriggerRules(project=self._catalogue.project, check_interval=catchup.judge)
        start = values.get("start_time")
        plain = {**values, "tags": list(values["tags"]), "start_time": start.isoformat() if start else None}
        entry = check_trigger(pipeline_uuid, plain, rules)
        variables.check(entry.variables)
        return entry

    def _require_pipeline(self, uuid: str) -> None:
        try:
            self._catalogue.get(uuid)
        except PipelineNotFound as error:  # here it is a field that is wrong, not the path
            fault = FieldError("/pipeline_uuid", error.detail)
            raise InvalidInput(error.detail, hint=error.hint, errors=[fault]) from error

    def _editable(self, tx: Tx, schedule_id: int, revision: int | None) -> ScheduleRow:
        """The trigger, locked, if the caller may change it."""
        row = _require(schedules.lock(tx, schedule_id), schedule_id)
        if row.managed_by == "file":
            raise _managed_by_file(row)
        if revision is not None and revision != row.revision:
            raise PreconditionFailed(
                f"trigger {schedule_id} is at revision {row.revision} now",
                hint="Read it again, then repeat the change with its new ETag.",
            )
        return row

    def _entry_of(self, row: ScheduleRow) -> TriggerEntry | None:
        if row.managed_by != "file":
            return None
        key = (row.pipeline_uuid, row.name)
        return next((e for e in self._catalogue.triggers() if (e.pipeline_uuid, e.name) == key), None)

    def _by(self) -> sync.By:
        found = (entry.pipeline for entry in self._catalogue.entries() if entry.pipeline is not None)
        week_start = self._catalogue.project.week_start
        return sync.By(self._node_id, clock.now(), week_start, limiting.limits_in(found))


def _deleted() -> dict[str, Any]:
    return {"status": ScheduleStatus.INACTIVE, "deleted_at": clock.now(), "token_hash": None}


_TOKEN_HINT: Final = "It must be active; POST /api/v1/pipeline_schedules/{id}/rotate_token gives a new token."
_DEFINED: Final = (
    "name",
    "schedule_type",
    "schedule_interval",
    "timezone",
    "status",
    "start_time",
    "description",
    "variables",
    "settings",
    "sla",
    "tags",
)


def _definition(row: ScheduleRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in _DEFINED}


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _require(row: ScheduleRow | None, schedule_id: int) -> ScheduleRow:
    if row is None:
        raise ScheduleNotFound(f"No trigger has the id {schedule_id}.")
    return row


def _require_free_name(tx: Tx, entry: TriggerEntry) -> None:
    if schedules.named(tx, entry.pipeline_uuid, entry.name) is not None:
        detail = f"pipeline '{entry.pipeline_uuid}' has a trigger '{entry.name}' already"
        raise NameTaken(detail, errors=[FieldError("/name", "is taken")])


def _managed_by_file(row: ScheduleRow) -> ManagedByFile:
    file = f"pipelines/{row.pipeline_uuid}/triggers.yaml"
    return ManagedByFile(
        f"trigger '{row.name}' is defined in {file}",
        hint=f"Change it in {file}; the service follows the file.",
    )


def _takes_calls(row: ScheduleRow) -> bool:
    api, active = row.schedule_type is ScheduleType.API, row.status is ScheduleStatus.ACTIVE
    return api and active and row.error is None
