"""What blocks of a test may ask of the service. Other pipelines run here too, unless the test says how they ended."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from app.errors import RunwrightError
from app.executors.base import OutputRef
from app.models.rows import RunRow
from app.scheduler.launch import LaunchRequest


class World(Protocol):
    """What is needed of it."""

    others: Mapping[str, str]
    secrets: Mapping[str, str]

    def start(self, request: LaunchRequest, parent: int | None = None) -> int:
        """Start a run; its id."""
        ...

    async def wait(self, run_id: int, seconds: float) -> None:
        """Wait for the end of a run, at most so long."""
        ...

    def shown(self, run_id: int) -> dict[str, Any]:
        """A run as blocks see it."""
        ...

    def newest(self, pipeline_uuid: str) -> Mapping[str, Any] | None:
        """The newest run of a pipeline here, as blocks see it, other than the one that asks."""
        ...

    def variables_of(self, pipeline_uuid: str) -> Mapping[str, Any]:
        """The variables of a pipeline's definition."""
        ...

    def left(self, pipeline_uuid: str, block_uuid: str) -> Sequence[OutputRef]:
        """What a block left in the newest run of a pipeline here."""
        ...


class Answers:
    """Answers the questions of blocks."""

    def __init__(self, world: World, given: Mapping[str, Any] | None = None) -> None:
        self._world = world
        self._given = given or {}
        self._known: Mapping[str, Callable[[RunRow, Mapping[str, Any]], Awaitable[Any]]] = {
            "trigger_pipeline": self._trigger,
            "wait_for_run": self._wait,
            "check_status": self._check_status,
            "get_secret_value": self._secret,
            "get_global_variables": self._variables,
            "get_variable": self._variable,
        }

    async def answer(self, run: RunRow, key: str, name: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        """The reply to a question of a block of `run`; see `scheduler.requests`."""
        try:
            if name in self._given:
                return {"value": self._given[name](payload)}
            if name in self._known:
                return {"value": await self._known[name](run, payload)}
        except RunwrightError as error:
            return _error(type(error).__name__, error.detail)
        except LookupError as error:
            return _error("NotFound", str(error.args[0]))
        return _error(
            "NotSupported", f"a test does not answer '{name}': replace the block, or give what it asks for"
        )

    async def _trigger(self, run: RunRow, payload: Mapping[str, Any]) -> dict[str, Any]:
        request = LaunchRequest(
            pipeline_uuid=str(payload["pipeline_uuid"]), variables=payload.get("variables") or {}
        )
        return self._world.shown(self._world.start(request, run.id))

    async def _wait(self, run: RunRow, payload: Mapping[str, Any]) -> dict[str, Any]:
        await self._world.wait(int(payload["run_id"]), float(payload["seconds"]))
        return self._world.shown(int(payload["run_id"]))

    async def _check_status(self, run: RunRow, payload: Mapping[str, Any]) -> bool:
        uuid = str(payload["pipeline_uuid"])
        found = self._world.newest(uuid)
        status = self._world.others.get(uuid) or (found["status"] if found else None)
        if found and payload.get("block_uuid") and uuid not in self._world.others:
            blocks = {block["block_uuid"]: block["status"] for block in found["block_runs"]}
            status = blocks.get(str(payload["block_uuid"]))
        if status in ("failed", "cancelled", "upstream_failed"):
            raise LookupError(f"the newest run of pipeline '{uuid}' is {status}")
        return status == "completed"

    async def _secret(self, run: RunRow, payload: Mapping[str, Any]) -> str:
        name = str(payload["name"])
        if name not in self._world.secrets:
            raise LookupError(f"the test has no secret '{name}': give it with secrets=")
        return self._world.secrets[name]

    async def _variables(self, run: RunRow, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        return self._world.variables_of(str(payload["pipeline_uuid"]))

    async def _variable(self, run: RunRow, payload: Mapping[str, Any]) -> list[OutputRef]:
        return list(self._world.left(str(payload["pipeline_uuid"]), str(payload["block_uuid"])))


def _error(kind: str, message: str) -> dict[str, Any]:
    return {"error": {"type": kind, "message": message}}
