"""The methods of the API, each told once; `Client` and `AsyncClient` are these methods on their runners."""

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import httpx

from app.client import following, waiting
from app.client.calls import given, one, pages, part, post
from app.client.faults import ClientError
from app.client.flow import Flow, Request, Stream, call, stream
from app.client.limit_calls import LimitCalls
from app.client.runners import AsyncRunner, Runner
from app.client.secret_calls import SecretCalls
from app.client.sending import Retries
from app.client.system_calls import SystemCalls
from app.client.trigger_calls import TriggerCalls
from app.models.explain_schemas import RunExplanation
from app.models.schemas import BlockRun, LogLine, Outputs, PipelineDefinition, PipelineRun, RunEvent

DEFAULT_URL: Final = "http://127.0.0.1:8000"


class Api(TriggerCalls, SystemCalls, LimitCalls, SecretCalls):
    """What both clients can do."""

    # Pipelines

    @stream
    def pipelines(self) -> Stream[PipelineDefinition]:
        """The pipelines of the project, invalid ones with their error."""
        return pages(PipelineDefinition, "pipelines", {}, self._retries)

    @call
    def pipeline(self, uuid: str) -> Flow[PipelineDefinition]:
        """One pipeline with its blocks."""
        return one(PipelineDefinition, Request("GET", f"pipelines/{part(uuid)}"), self._retries)

    # Pipeline runs

    @call
    def launch(
        self,
        pipeline_uuid: str,
        variables: Mapping[str, Any] | None = None,
        *,
        execution_date: datetime | None = None,
        block_uuid: str | None = None,
        with_upstream: bool | None = None,
        skip_sensors: bool | None = None,
        priority: int | None = None,
        concurrency_key: str | None = None,
        idempotency_key: str | None = None,
    ) -> Flow[PipelineRun]:
        """Start a run of a pipeline now; `wait` waits for its end."""
        asked = post(
            f"pipelines/{part(pipeline_uuid)}/pipeline_runs",
            idempotency_key,
            variables=variables,
            execution_date=execution_date,
            block_uuid=block_uuid,
            with_upstream=with_upstream,
            skip_sensors=skip_sensors,
            priority=priority,
            concurrency_key=concurrency_key,
        )
        return one(PipelineRun, asked, self._retries)

    @stream
    def runs(
        self,
        *,
        pipeline_uuid: str | Sequence[str] | None = None,
        status: str | Sequence[str] | None = None,
        pipeline_schedule_id: int | Sequence[int] | None = None,
        cause: str | Sequence[str] | None = None,
        passed_sla: bool | None = None,
        limit: int | None = None,
    ) -> Stream[PipelineRun]:
        """Runs that pass every filter, newest first, without their block runs."""
        filters = given(
            pipeline_uuid=pipeline_uuid,
            status=status,
            pipeline_schedule_id=pipeline_schedule_id,
            cause=cause,
            passed_sla=None if passed_sla is None else str(passed_sla).lower(),
        )
        return pages(PipelineRun, "pipeline_runs", filters, self._retries, limit)

    @call
    def run(self, run_id: int) -> Flow[PipelineRun]:
        """One run with its block runs and their attempts."""
        return waiting.get_run(run_id, self._retries)

    @call
    def explain_run(self, run_id: int) -> Flow[RunExplanation]:
        """Why a run waits, what it is doing, or why it failed or was cancelled."""
        return one(RunExplanation, Request("GET", f"pipeline_runs/{run_id}/explain"), self._retries)

    @call
    def cancel(self, run_id: int) -> Flow[PipelineRun]:
        """End a run now; one that is over is returned unchanged."""
        return one(PipelineRun, post(f"pipeline_runs/{run_id}/cancel"), self._retries)

    @call
    def retry(
        self,
        run_id: int,
        source: str = "failed",
        variables: Mapping[str, Any] | None = None,
        *,
        changed: str | None = None,
        idempotency_key: str | None = None,
    ) -> Flow[PipelineRun]:
        """A new run in place of one that is over, from `failed`, from `start`, or from the block of that name.

        `changed`: `accept` or `rerun` finished blocks whose file has changed since; without it that is an error.
        """
        options = {"from": source, **given(variables=variables, changed=changed)}
        asked = post(f"pipeline_runs/{run_id}/retry", idempotency_key, **options)
        return one(PipelineRun, asked, self._retries)

    @call
    def wait(self, run_id: int, timeout: float | None = None) -> Flow[PipelineRun]:
        """The run when it is over, however it ended. Raises WaitTimeout after `timeout` seconds."""
        return waiting.wait(run_id, timeout, self._retries)

    @stream
    def logs(self, run_id: int, *, block_uuid: str | None = None) -> Stream[LogLine]:
        """The log of a run so far, oldest line first."""
        return pages(LogLine, f"pipeline_runs/{run_id}/logs", given(block_uuid=block_uuid), self._retries)

    @stream
    def follow_logs(self, run_id: int, *, block_uuid: str | None = None) -> Stream[LogLine]:
        """The log of a run as it is written, from the first line until the run is over; no line lost or twice."""
        return following.follow_logs(run_id, block_uuid, self._retries)

    @stream
    def follow_events(self, run_id: int) -> Stream[RunEvent]:
        """What happens to a run as it happens, from its creation to its end."""
        return following.follow_events(run_id, self._retries)

    @stream
    def block_runs(
        self,
        run_id: int,
        *,
        parent_id: int | None = None,
        status: str | Sequence[str] | None = None,
        limit: int | None = None,
    ) -> Stream[BlockRun]:
        """The block runs of a run, or the children of one of them."""
        filters = given(parent_id=parent_id, status=status)
        return pages(BlockRun, f"pipeline_runs/{run_id}/block_runs", filters, self._retries, limit)

    @call
    def block_run(self, block_run_id: int) -> Flow[BlockRun]:
        """One block run with its attempts."""
        return one(BlockRun, Request("GET", f"block_runs/{block_run_id}"), self._retries)

    @call
    def output(self, block_run_id: int) -> Flow[Outputs]:
        """What a block left: plain values as they are, data frames by their schema and first rows."""
        return one(Outputs, Request("GET", f"block_runs/{block_run_id}/output"), self._retries)

    @call
    def trigger_pipeline(
        self,
        pipeline_uuid: str,
        variables: Mapping[str, Any] | None = None,
        check_status: bool = False,
        error_on_failure: bool = False,
        poll_interval: float = 60,
        poll_timeout: float | None = None,
        schedule_name: str | None = None,
        verbose: bool = True,
    ) -> Flow[PipelineRun]:
        """Start a pipeline (Mage: `mage_ai.orchestration.triggers.api.trigger_pipeline`).

        It starts at once. `check_status` waits for its end, which is noticed when it comes; `poll_interval`
        seconds is how often `verbose` says what is waited for. Raises WaitTimeout after `poll_timeout` seconds,
        and with `error_on_failure` RunFailed for a run that failed; a cancelled one is returned. With a
        `schedule_name` the run belongs to the trigger of that name, an API trigger that is made if need be.
        """
        return waiting.trigger_pipeline(
            self._retries,
            pipeline_uuid,
            variables,
            check_status,
            error_on_failure,
            poll_interval,
            poll_timeout,
            schedule_name,
            verbose,
        )


class Client(Api, Runner):
    """A client that blocks. Use it as a context manager, and in one thread at a time."""

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        retries: Retries | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """The service at `url` (else RUNWRIGHT_URL, else this machine's port 8000), with an API key
        (else RUNWRIGHT_API_KEY)."""
        Api.__init__(self, retries or Retries())
        Runner.__init__(self, httpx.Client(transport=transport, **_options(url, key)))


class AsyncClient(Api, AsyncRunner):
    """The same for asyncio: values are awaited, iterators are iterated with `async for`."""

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        retries: Retries | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """As :class:`Client`."""
        Api.__init__(self, retries or Retries())
        AsyncRunner.__init__(self, httpx.AsyncClient(transport=transport, **_options(url, key)))


def _options(url: str | None, key: str | None) -> dict[str, Any]:
    address = url or os.environ.get("RUNWRIGHT_URL") or DEFAULT_URL
    shown = key or os.environ.get("RUNWRIGHT_API_KEY")
    try:
        parsed = httpx.URL(address)
    except httpx.InvalidURL as error:
        raise ClientError(f"{address!r} is not an address: {error}.") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ClientError(f"{address!r} is not the address of a service.", hint=f"Such as {DEFAULT_URL}")
    headers = {"Authorization": f"Bearer {shown}"} if shown else {}
    return {"base_url": f"{address.rstrip('/')}/api/v1/", "headers": headers}
