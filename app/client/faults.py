"""What a call may raise. An answer that is a problem (RFC 9457) becomes a `ServiceError` that carries all of it.

ClientError
├── ServiceError: code, status, detail, hint, errors, problem
│   ├── Invalid 400, 413, 415, 422     ├── Conflict 409
│   ├── Denied 401, 403                ├── Changed 412
│   └── NotFound 404                   └── Unavailable 429, 502, 503, 504
├── Unreachable    nobody answered
├── WaitTimeout    the run was not over in time
└── RunFailed      the run failed, and the caller wanted that to be an error
"""

from http import HTTPStatus

import httpx
from pydantic import ValidationError

from app.errors import FieldError, RunwrightError
from app.models.schemas import PipelineRun
from app.models.wire import Problem


class ClientError(RunwrightError):
    """Base of everything that a call raises."""


class ServiceError(ClientError):
    """The service answered with an error. `problem` is its answer."""

    def __init__(self, problem: Problem) -> None:
        errors = [FieldError(fault.pointer, fault.message) for fault in problem.errors or ()]
        super().__init__(problem.detail, hint=problem.hint or "", errors=errors)
        self.problem = problem
        self.code, self.status, self.title = problem.code, problem.status, problem.title


class Invalid(ServiceError):
    """The service does not understand the request, or it says something impossible."""


class Denied(ServiceError):
    """No key, a wrong one, or one that may not do this."""


class NotFound(ServiceError):
    """Nothing of that name or id."""


class Conflict(ServiceError):
    """The thing is in a state that does not allow this."""


class Changed(ServiceError):
    """Somebody else changed it since it was read."""


class Unavailable(ServiceError):
    """The service, or a proxy before it, cannot answer now; repeating it did not help."""


class Unreachable(ClientError):
    """Nobody answers at the address of the service."""

    code, status, title = "unreachable", 503, "Service unreachable"


class WaitTimeout(ClientError):
    """The run is not over; `run` is how it stood."""

    code, status, title = "wait_timeout", 504, "Not over in time"

    def __init__(self, run: PipelineRun, timeout_s: float) -> None:
        super().__init__(f"Pipeline run {run.id} is still {run.status} after {timeout_s:g} s.")
        self.run = run


class RunFailed(ClientError):
    """The run has failed; `run` is how it ended."""

    code, title = "run_failed", "Pipeline run failed"

    def __init__(self, run: PipelineRun) -> None:
        reason = f" ({run.status_reason})" if run.status_reason else ""
        super().__init__(f"Pipeline run {run.id} for pipeline {run.pipeline_uuid}: {run.status}{reason}")
        self.run = run


_BY_STATUS: dict[int, type[ServiceError]] = {
    **dict.fromkeys((400, 408, 413, 415, 422), Invalid),
    **dict.fromkeys((401, 403), Denied),
    404: NotFound,
    409: Conflict,
    412: Changed,
    **dict.fromkeys((429, 502, 503, 504), Unavailable),
}


def error_of(response: httpx.Response) -> ServiceError:
    """The error that an answer is. Its body has been read."""
    return _BY_STATUS.get(response.status_code, ServiceError)(_problem(response))


def _problem(response: httpx.Response) -> Problem:
    try:
        return Problem.model_validate_json(response.content)
    except ValidationError:
        return _foreign(response)


def _foreign(response: httpx.Response) -> Problem:
    """An answer that is not the service's own: a proxy's page, another server."""
    status, path = response.status_code, response.request.url.path
    known = status in HTTPStatus.__members__.values()
    phrase = HTTPStatus(status).phrase if known else f"Status {status}"
    return Problem(
        type="about:blank",
        title=phrase,
        status=status,
        detail=f"{response.request.method} {response.request.url}: {status} {phrase}",
        instance=path,
        code=phrase.lower().replace(" ", "_"),
        request_id=response.headers.get("x-request-id", ""),
        hint="The answer is not Runwright's: is the address right?",
    )
