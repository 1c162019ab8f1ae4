"""The methods of the API about the service as a whole, each told once for both clients."""

from app.client.calls import Calls, one, post
from app.client.flow import Flow, Request, call
from app.models.system_schemas import Applied, Missed, PauseState


class SystemCalls(Calls):
    """What both clients can do with the service itself."""

    @call
    def paused(self) -> Flow[PauseState]:
        """Whether all triggers are paused, since when and why."""
        return one(PauseState, Request("GET", "system/pause"), self._retries)

    @call
    def pause_all(self, note: str | None = None) -> Flow[PauseState]:
        """Pause all triggers, on every node and over restarts; runs that exist go on."""
        return one(PauseState, post("system/pause", note=note), self._retries)

    @call
    def resume_all(self, missed: Missed | None = None) -> Flow[PauseState]:
        """Let all triggers go on; without `missed` each one's own `catch_up` decides about what was due meanwhile."""
        return one(PauseState, post("system/resume", missed=missed), self._retries)

    @call
    def apply_triggers(self, *, prune: bool = False, dry_run: bool = False) -> Flow[Applied]:
        """Bring the triggers to the files of the service's project now, and say what that changes."""
        asked = post("pipeline_schedules/apply", prune=prune, dry_run=dry_run)
        return one(Applied, asked, self._retries)
