"""The methods of the API about limits, each told once for both clients."""

from app.client.calls import Calls, one, pages, part
from app.client.flow import Flow, Request, Stream, call, stream
from app.client.sending import send
from app.models.limit_schemas import LimitChange, RunLimit


class LimitCalls(Calls):
    """What both clients can do with limits on runs."""

    @stream
    def limits(self, *, limit: int | None = None) -> Stream[RunLimit]:
        """Every limit, with what runs and what waits under it."""
        return pages(RunLimit, "limits", {}, self._retries, limit)

    @call
    def limit(self, scope: str) -> Flow[RunLimit]:
        """One limit; a scope is `global`, `pipeline:<uuid>`, `schedule:<id>` or `key:<key>`."""
        return one(RunLimit, Request("GET", _limit(scope)), self._retries)

    @call
    def set_limit(self, scope: str, cap: int) -> Flow[RunLimit]:
        """Let so many runs of a scope run at once; 0 lets none start."""
        return one(RunLimit, Request("PUT", _limit(scope), body={"cap": cap}), self._retries)

    @call
    def unset_limit(self, scope: str) -> Flow[None]:
        """Lift a limit."""
        yield from send(Request("DELETE", _limit(scope)), self._retries)

    @stream
    def limit_history(self, scope: str, *, limit: int | None = None) -> Stream[LimitChange]:
        """Every change of a limit, newest first."""
        return pages(LimitChange, f"{_limit(scope)}/history", {}, self._retries, limit)


def _limit(scope: str) -> str:
    return f"limits/{part(scope)}"
