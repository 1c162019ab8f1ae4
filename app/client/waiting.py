"""Waiting for the end of a run, and Mage's way to start a pipeline and wait."""

import sys
import time
from collections.abc import Mapping
from math import inf
from typing import Any, Final

from app.client.calls import given, one, page, part, post
from app.client.faults import Conflict, RunFailed, WaitTimeout
from app.client.flow import Flow, Pause, Request
from app.client.sending import Retries
from app.models.schemas import PipelineRun
from app.models.trigger_schemas import NewSchedule, PipelineSchedule

_LIVE: Final = ("initial", "running")
#: Pauses between two looks at a run grow from the first to the last.
_FIRST_S, _LAST_S = 0.1, 2.0


def get_run(run_id: int, retries: Retries) -> Flow[PipelineRun]:
    """A run with its block runs."""
    return one(PipelineRun, Request("GET", f"pipeline_runs/{run_id}"), retries)


def wait(run_id: int, timeout: float | None, retries: Retries) -> Flow[PipelineRun]:
    """The run when it is over. Raises WaitTimeout."""
    run = yield from _watch(run_id, timeout, retries)
    if timeout is not None and run.status in _LIVE:
        raise WaitTimeout(run, timeout)
    return run


def _watch(run_id: int, seconds: float | None, retries: Retries) -> Flow[PipelineRun]:
    """The run when it is over or the time is up."""
    end = inf if seconds is None else time.monotonic() + seconds
    pause = _FIRST_S
    while True:
        run = yield from get_run(run_id, retries)
        left = end - time.monotonic()
        if run.status not in _LIVE or left <= 0:
            return run
        yield Pause(min(pause, left))
        pause = min(pause * 1.5, _LAST_S)


def trigger_pipeline(
    retries: Retries,
    pipeline_uuid: str,
    variables: Mapping[str, Any] | None,
    check_status: bool,
    error_on_failure: bool,
    poll_interval: float,
    poll_timeout: float | None,
    schedule_name: str | None,
    verbose: bool,
) -> Flow[PipelineRun]:
    """See :meth:`app.client.Client.trigger_pipeline`."""
    path = f"pipelines/{part(pipeline_uuid)}/pipeline_runs"
    if schedule_name is not None:
        trigger = yield from _trigger_named(schedule_name, pipeline_uuid, retries)
        path = f"pipeline_schedules/{trigger.id}/pipeline_runs"
    launched = yield from one(PipelineRun, post(path, variables=variables), retries)
    run = yield from get_run(launched.id, retries)  # with its block runs
    end = inf if poll_timeout is None else time.monotonic() + poll_timeout
    while check_status and run.status in _LIVE:
        if verbose:
            sys.stdout.write(f"Pipeline run {run.id} for pipeline {pipeline_uuid}: {run.status}\n")
        left = end - time.monotonic()
        if left <= 0:
            raise WaitTimeout(run, poll_timeout or 0)
        run = yield from _watch(run.id, max(_FIRST_S, min(poll_interval, left)), retries)
    if check_status and error_on_failure and run.status == "failed":
        raise RunFailed(run)
    return run


def _trigger_named(name: str, pipeline_uuid: str, retries: Retries) -> Flow[PipelineSchedule]:
    """The trigger of that name on the pipeline; a new API trigger if there is none (Mage does the same)."""
    if (found := (yield from _find(name, pipeline_uuid, retries))) is not None:
        return found
    fields = given(name=name, pipeline_uuid=pipeline_uuid, schedule_type="api", status="active")
    try:
        return (yield from one(NewSchedule, post("pipeline_schedules", **fields), retries))
    except Conflict:
        found = yield from _find(name, pipeline_uuid, retries)  # somebody was quicker
        if found is None:
            raise
        return found


def _find(name: str, pipeline_uuid: str, retries: Retries) -> Flow[PipelineSchedule | None]:
    named = {"pipeline_uuid": pipeline_uuid, "name": name}
    found = yield from page(PipelineSchedule, "pipeline_schedules", named, None, retries)
    return found.items[0] if found.items else None
