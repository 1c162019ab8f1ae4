"""What blocks may ask of the service while they run: start another pipeline, wait for it, look at its runs."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from app import clock
from app.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    RunNotFound,
    RunwrightError,
    StoreUnavailable,
    UnknownBlock,
)
from app.models.rows import BlockRow, RunRow, ScheduleRow
from app.models.states import BlockStatus, Cause, RunStatus
from app.pipelines.catalogue import Catalogue
from app.scheduler.borrow import located
from app.scheduler.launch import LaunchRequest
from app.scheduler.shown import shown
from app.scheduler.variables import check, merge
from app.store import limits, ownership, runs
from app.store.db import Database, loads
from app.store.scopes import scopes_of

T = TypeVar("T")

#: A pipeline that starts a pipeline that starts … ends here.
MAX_DEPTH = 10
MAX_WAIT_S = 3600.0
#: between two tries of a question that the database did not answer
AGAIN_S = 0.5


class Requests:
    """Answers questions of blocks; `launch` and `wait` are the engine's."""

    def __init__(
        self,
        db: Database,
        catalogue: Catalogue,
        launch: Callable[..., Awaitable[RunRow]],
        wait: Callable[[int, float], Awaitable[bool]],
        trigger_named: Callable[[str, str], Awaitable[ScheduleRow]],
        secret: Callable[[str], Awaitable[str]],
        artifacts: Path,
    ) -> None:
        self._db, self._catalogue, self._launch, self._wait_for = db, catalogue, launch, wait
        self._trigger_named, self._secret, self._artifacts = trigger_named, secret, artifacts
        self._known: Mapping[str, Callable[[RunRow, str, Mapping[str, Any]], Awaitable[Any]]] = {
            "trigger_pipeline": self._trigger,
            "wait_for_run": self._wait,
            "check_status": self._check_status,
            "get_secret_value": self._secret_value,
            "get_global_variables": self._global_variables,
            "get_variable": self._variable,
        }

    async def answer(self, run: RunRow, key: str, name: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        """The reply to a question of a block of `run`; `key` names the question within the run, over retries of
        the service, so that a block which is started again after a loss finds the child it had started."""
        handler = self._known.get(name)
        if handler is None:
            return _error("NotSupported", f"this service does not know '{name}'")
        try:
            # Texts that no database takes, and more; of the variables the launch itself says it.
            check({argument: payload[argument] for argument in payload if argument != "variables"}, where="")
            while True:
                try:
                    return {"value": await handler(run, key, payload)}
                except StoreUnavailable:
                    # The block could only fail. Asked again, a question has its effect once.
                    await asyncio.sleep(AGAIN_S)
        except RunwrightError as error:
            return _error(type(error).__name__, f"{error.detail}{f' ({error.hint})' if error.hint else ''}")

    async def _trigger(self, run: RunRow, key: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        request = LaunchRequest(
            pipeline_uuid=str(payload["pipeline_uuid"]),
            variables=_read(payload, "variables", _mapping, "a mapping of names to values"),
            cause=Cause.PIPELINE,
        )
        if run.depth >= MAX_DEPTH:
            raise Conflict(
                f"pipelines have started one another {MAX_DEPTH} deep",
                hint="do they call each other in a circle?",
            )
        waits = bool(payload.get("wait"))
        if waits:
            await self._refuse_deadlock(run, request)
        self._catalogue.get(request.pipeline_uuid)  # before a trigger is made for it
        named = payload.get("schedule_name")
        schedule = await self._trigger_named(request.pipeline_uuid, str(named)) if named else None
        extra = {"parent_run_id": run.id, "depth": run.depth + 1, "rides": waits}
        dedupe = {"dedupe_scope": f"run:{run.id}", "dedupe_key": key}
        child = await self._launch(request, schedule=schedule, extra={**extra, **dedupe})
        variables = merge({}, schedule.variables if schedule else {}, request.variables)
        if (child.pipeline_uuid, child.variables) != (request.pipeline_uuid, variables):
            # A block that asks something else the second time gets what it asks for.
            child = await self._launch(request, schedule=schedule, extra=extra)
        return await self._shown(child)

    async def _refuse_deadlock(self, run: RunRow, request: LaunchRequest) -> None:
        """Refuse a child that could only start after the ancestors that wait for it have ended."""
        family = await self._db.read(ownership.ancestors, run.id)
        caps = await self._db.read(limits.limits, "pipeline:")
        (scope,) = scopes_of(request.pipeline_uuid, None, None, rides=True)
        held = sum(1 for ancestor in family if ancestor.pipeline_uuid == request.pipeline_uuid)
        if scope in caps and caps[scope] <= held:
            raise Conflict(
                f"pipeline '{request.pipeline_uuid}' allows {caps[scope]} run(s) at once, and runs that would wait for"
                " this one hold them all",
                hint="raise pipeline_run_limit_all_triggers, or do not wait for the run",
            )

    async def _wait(self, run: RunRow, key: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        run_id = _read(payload, "run_id", int, "the id of a pipeline run")
        seconds = _read(payload, "seconds", float, "a number of seconds")
        await self._wait_for(run_id, min(MAX_WAIT_S, seconds))
        child = await self._db.read(runs.get, run_id)
        if child is None:
            raise RunNotFound(f"there is no pipeline run {run_id}")
        return await self._shown(child)

    async def _shown(self, run: RunRow) -> dict[str, Any]:
        blocks = await self._db.read(runs.blocks, run.id, attempts=False)
        return shown(run, ((b.block_uuid, b.status) for b in blocks))

    async def _check_status(self, run: RunRow, key: str, payload: Mapping[str, Any]) -> bool:
        """Mage's `check_status`: the newest run with an execution date in the window decides."""
        uuid, named = str(payload["pipeline_uuid"]), payload.get("block_uuid")
        block_uuid = None if named is None else str(named)
        pipeline = self._catalogue.get(uuid)  # raises PipelineNotFound
        if block_uuid is not None and block_uuid not in pipeline.by_uuid:
            raise UnknownBlock(f"pipeline '{uuid}' has no block '{block_uuid}'")
        until = _read(payload, "execution_date", _moment, "a time, as in kwargs['execution_date']")
        hours = "a number of hours, back from execution_date"
        since = _read(payload, "hours", lambda given: until - timedelta(hours=float(given or 24)), hours)
        found = await self._db.read(runs.newest_between, uuid, since, until)
        if found is None:
            return False
        if block_uuid is None:
            return _judge(found.status, f"run {found.id} of pipeline '{uuid}'")
        blocks = await self._db.read(runs.blocks, found.id, attempts=False)
        return _judge_block(blocks, block_uuid, found.id)

    async def _secret_value(self, run: RunRow, key: str, payload: Mapping[str, Any]) -> str:
        return await self._secret(str(payload["name"]))

    async def _global_variables(self, run: RunRow, key: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        """The variables of a pipeline's file and its project's; secrets in them are names still."""
        return dict(self._catalogue.get(str(payload["pipeline_uuid"])).variables)

    async def _variable(self, run: RunRow, key: str, payload: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What a block of a pipeline left in its newest completed run: references, files by their full path."""
        uuid, block_uuid = str(payload["pipeline_uuid"]), str(payload["block_uuid"])
        if block_uuid not in self._catalogue.get(uuid).by_uuid:  # raises PipelineNotFound
            raise UnknownBlock(f"pipeline '{uuid}' has no block '{block_uuid}'")
        found = await self._db.read(runs.left_outputs, uuid, [block_uuid])
        if block_uuid not in found:
            raise NotFound(
                f"no completed run of pipeline '{uuid}' has left an output of block '{block_uuid}'"
            )
        return [located(ref, self._artifacts) for ref in loads(found[block_uuid][1])]


def _judge(status: RunStatus, what: str) -> bool:
    if status in (RunStatus.FAILED, RunStatus.CANCELLED):
        raise Conflict(f"{what} is {status}")
    return status is RunStatus.COMPLETED


def _judge_block(blocks: list[BlockRow], block_uuid: str, run_id: int) -> bool:
    status = next((block.status for block in blocks if block.block_uuid == block_uuid), None)
    if status in (BlockStatus.FAILED, BlockStatus.CANCELLED, BlockStatus.UPSTREAM_FAILED):
        raise Conflict(f"block '{block_uuid}' of run {run_id} is {status}")
    return status is BlockStatus.COMPLETED


def _read(payload: Mapping[str, Any], name: str, read: Callable[[Any], T], what: str) -> T:
    """An argument of a question. Raises InvalidInput for one that is not `what` it must be."""
    given = payload.get(name)
    try:
        return read(given)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInput(f"{name} must be {what}, not {given!r:.100}") from error


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping | None):
        raise TypeError
    return dict(value or {})


def _moment(value: Any) -> datetime:
    """An ISO time; a naive one is UTC, as Mage has it."""
    found = datetime.fromisoformat(str(value))
    return found if found.tzinfo is not None else found.replace(tzinfo=clock.now().tzinfo)


def _error(kind: str, message: str) -> dict[str, Any]:
    return {"error": {"type": kind, "message": message}}
