"""The Python client of the HTTP API: `Client` and `AsyncClient`, and Mage's `trigger_pipeline` for plain scripts.

It stands apart: it knows the bodies of the API and the error tree, and nothing else of the service.

    with Client("http://127.0.0.1:8000") as client:
        run = client.launch("shop", {"top": 3})
        for line in client.follow_logs(run.id):
            print(line.text)
        print(client.run(run.id).status)

`AsyncClient` has the same methods; what returns a value there is awaited, what returns an iterator is iterated
with `async for`. Times of failure are bridged: a request that may be repeated is, and a call that creates
something has one idempotency key, so that repeating it creates it once.
"""

from app.client.alone import set_default_server, trigger_pipeline
from app.client.api import AsyncClient, Client
from app.client.faults import (
    Changed,
    ClientError,
    Conflict,
    Denied,
    Invalid,
    NotFound,
    RunFailed,
    ServiceError,
    Unavailable,
    Unreachable,
    WaitTimeout,
)
from app.client.sending import Retries
from app.models.explain_schemas import Reason, RunExplanation, SlotExplanation
from app.models.limit_schemas import LimitChange, RunLimit
from app.models.schemas import BlockRun, LogLine, Outputs, PipelineDefinition, PipelineRun, RunEvent
from app.models.trigger_schemas import NewSchedule, PipelineSchedule, Slot
from app.models.wire import Problem

__all__ = [
    "AsyncClient",
    "BlockRun",
    "Changed",
    "Client",
    "ClientError",
    "Conflict",
    "Denied",
    "Invalid",
    "LimitChange",
    "LogLine",
    "NewSchedule",
    "NotFound",
    "Outputs",
    "PipelineDefinition",
    "PipelineRun",
    "PipelineSchedule",
    "Problem",
    "Reason",
    "Retries",
    "RunEvent",
    "RunExplanation",
    "RunFailed",
    "RunLimit",
    "ServiceError",
    "Slot",
    "SlotExplanation",
    "Unavailable",
    "Unreachable",
    "WaitTimeout",
    "set_default_server",
    "trigger_pipeline",
]
