"""Questions from inside a block to the service, over the worker's own link: no HTTP, no key.

One at a time: the link carries one conversation. A process that a block forked must not speak on it.
"""

from __future__ import annotations

import json
import os
import sys
from _thread import allocate_lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .link import Link


class ServiceError(Exception):
    """The service refused what the block asked for; the message says why, `kind` is the name of the error."""

    def __init__(self, message: str, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind


class Line:
    """The link to the service while a block runs, or nothing."""

    link: Link | None = None
    pid = 0
    #: who answers instead where the block runs in a test's own process
    direct: Any = None


_lock = allocate_lock()


def connect(link: Link) -> None:
    """Let blocks of this process ask over this link."""
    Line.link, Line.pid = link, os.getpid()


def ask(name: str, payload: dict[str, Any]) -> Any:
    """The service's answer. Raises ServiceError, or RuntimeError where there is nobody to ask."""
    if Line.direct is not None:
        return _value(Line.direct(name, payload))
    link = Line.link
    if link is None or os.getpid() != Line.pid:
        raise RuntimeError("%s works in the block's own process only, and not in an inline block" % name)
    with _lock:
        link.send("ask", {"name": name, "payload": payload})
        reply = link.receive()
    return _value(reply)


def _value(reply: dict[str, Any] | None) -> Any:
    if reply is None:
        raise RuntimeError("the service is gone")
    error = reply.get("error")
    if error is not None:
        raise ServiceError("%s: %s" % (error["type"], error["message"]), str(error["type"]))
    return reply["value"]


class PipelineRun:
    """A pipeline run as `trigger_pipeline` returns it (Mage's attributes)."""

    def __init__(self, values: dict[str, Any]) -> None:
        from .attempt import moment

        self.__dict__.update(values)
        for name in ("execution_date", "created_at", "started_at", "completed_at"):
            setattr(self, name, moment(values.get(name)))

    def __repr__(self) -> str:
        return "<PipelineRun %s of '%s': %s>" % (self.id, self.pipeline_uuid, self.status)  # type: ignore[attr-defined]


def _jsonable(value: Any) -> Any:
    """The value as JSON carries it: datetimes, Decimals, UUIDs as text, numpy scalars as numbers."""
    return json.loads(json.dumps(value, default=_plain))


def _plain(value: Any) -> Any:
    for name in ("isoformat", "item"):
        method = getattr(value, name, None)
        if callable(method):
            return method()
    return str(value)


def trigger_pipeline(
    pipeline_uuid: str,
    variables: dict[str, Any] | None = None,
    check_status: bool = False,
    error_on_failure: bool = False,
    poll_interval: float = 60,
    poll_timeout: float | None = None,
    schedule_name: str | None = None,
    verbose: bool = True,
    repo_path: str | None = None,
    **unused: Any,
) -> PipelineRun:
    """Start another pipeline; with `check_status` wait for its end (Mage: `triggers.api.trigger_pipeline`).

    It starts at once. `error_on_failure` raises when it failed; `poll_timeout` seconds bound the waiting. The end
    is noticed when it comes: `poll_interval` is how often `verbose` says what it waits for. With `schedule_name`
    the run belongs to the trigger of that name, an API trigger that is made if need be.
    """
    if unused:
        raise TypeError("trigger_pipeline() does not support %s" % ", ".join(sorted(unused)))
    if isinstance(variables, str) or isinstance(check_status, dict):
        # Mage has `repo_path` second: whoever passes it by position means something else by the third, too.
        raise TypeError("trigger_pipeline() takes the pipeline, then variables: pass the others by name")
    request = {
        "pipeline_uuid": pipeline_uuid,
        "variables": _jsonable(variables or {}),
        "schedule_name": schedule_name,
        "wait": bool(check_status),
    }
    run: Any = PipelineRun(ask("trigger_pipeline", request))
    if check_status:
        run = _wait(run, poll_interval, poll_timeout, verbose)
    if error_on_failure and run.status == "failed":
        raise Exception("Pipeline run %s for pipeline %s: %s" % (run.id, pipeline_uuid, run.status))
    return run  # type: ignore[no-any-return]


def _wait(run: Any, poll_interval: float, poll_timeout: float | None, verbose: bool) -> Any:
    """Wait for the end of a run; raises when `poll_timeout` seconds are over first."""
    waited = 0.0
    while run.status in ("initial", "running"):
        step = poll_interval if poll_timeout is None else min(poll_interval, poll_timeout - waited)
        if step <= 0:
            raise Exception("Pipeline run %s is still %s after %g s" % (run.id, run.status, waited))
        if verbose:
            sys.stdout.write(
                "Pipeline run %s for pipeline %s: %s\n" % (run.id, run.pipeline_uuid, run.status)
            )
        run = PipelineRun(ask("wait_for_run", {"run_id": run.id, "seconds": step}))
        waited += step
    return run


def check_status(
    pipeline_uuid: str,
    execution_date: Any,
    repo_path: str | None = None,
    block_uuid: str | None = None,
    hours: float = 24,
) -> bool:
    """Whether the newest run of a pipeline in the `hours` up to `execution_date` completed (Mage's sensor helper).

    None yet: False. Raises when that run, or its block `block_uuid`, failed or was cancelled.
    """
    request = {
        "pipeline_uuid": pipeline_uuid,
        "execution_date": _jsonable(execution_date),
        "block_uuid": block_uuid,
        "hours": hours,
    }
    return bool(ask("check_status", request))
