"""One error tree. Each error knows its code, its HTTP status and the way out.

RunwrightError
├── InvalidInput 422          ├── Conflict 409            ├── StoreUnavailable 503
│   ├── PipelineInvalid       │   ├── ManagedByFile       │   └── OutcomeUnknown 504
│   ├── UnknownBlock          │   ├── NameTaken           ├── LeaseLost (internal)
│   └── IdempotencyMismatch   │   └── Quarantined         └── StartRefused (exit 78)
├── NotFound 404              ├── PreconditionFailed 412
│   ├── PipelineNotFound      ├── Forbidden 403
│   ├── RunNotFound           └── Unauthorized 401
│   └── ScheduleNotFound
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FieldError:
    """One fault of one input field: `pointer` is a JSON pointer (RFC 6901) or a query parameter's name."""

    pointer: str
    message: str


def sentence(text: str) -> str:
    """A detail or a hint as it is shown: a sentence, unless it begins with a place or a name.

    >>> sentence("there is no pipeline 'a'"), sentence("limit: must be 1"), sentence("a.yaml:4: is empty")
    ("There is no pipeline 'a'.", 'limit: must be 1', 'a.yaml:4: is empty')
    """
    if not re.match("[a-z]+ ", text):
        return text
    ends = text[-1] in ".?!:" or "/" in text.rpartition(" ")[2]
    return text[0].upper() + text[1:] + ("" if ends else ".")


class RunwrightError(Exception):
    """Base of every error that a user may see. `hint` names the way out."""

    code = "internal_error"
    status = 500
    title = "Internal error"

    def __init__(self, detail: str, *, hint: str = "", errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint
        self.errors = tuple(errors)


class InvalidInput(RunwrightError):
    """The request is well formed but says something impossible."""

    code, status, title = "invalid_input", 422, "Invalid input"


class PipelineInvalid(InvalidInput):
    """The pipeline's definition on disk has a fault; the detail gives file and line."""

    code, title = "pipeline_invalid", "Pipeline definition is invalid"


class UnknownBlock(InvalidInput):
    """The pipeline has no block of that name."""

    code, title = "unknown_block", "Unknown block"


class IdempotencyMismatch(InvalidInput):
    """The Idempotency-Key belongs to another request."""

    code, title = "idempotency_mismatch", "Idempotency key reused"


class NotFound(RunwrightError):
    """Nothing of that name or id."""

    code, status, title = "not_found", 404, "Not found"


class PipelineNotFound(NotFound):
    """No pipeline of that name in the project folder."""

    code, title = "pipeline_not_found", "Pipeline not found"


class RunNotFound(NotFound):
    """No pipeline run with that id."""

    code, title = "run_not_found", "Pipeline run not found"


class ScheduleNotFound(NotFound):
    """No trigger with that id."""

    code, title = "schedule_not_found", "Trigger not found"


class LimitNotFound(NotFound):
    """The scope has no limit."""

    code, title = "limit_not_found", "No such limit"


class Conflict(RunwrightError):
    """The thing is in a state that does not allow this."""

    code, status, title = "conflict", 409, "Conflict"


class ManagedByFile(Conflict):
    """The trigger is defined in a file of the project; the file is where it is changed."""

    code, title = "managed_by_file", "Managed by a file"


class NameTaken(Conflict):
    """Another trigger of the pipeline has that name."""

    code, title = "name_taken", "Name taken"


class Quarantined(Conflict):
    """The trigger has a fault and does not fire until its definition has been mended."""

    code, title = "quarantined", "Trigger quarantined"


class PreconditionFailed(RunwrightError):
    """What the caller has seen (If-Match) is no longer what is there."""

    code, status, title = "precondition_failed", 412, "Precondition failed"


class Unauthorized(RunwrightError):
    """No key, or an unknown one."""

    code, status, title = "unauthorized", 401, "Unauthorized"


class Forbidden(RunwrightError):
    """The caller may not do this."""

    code, status, title = "forbidden", 403, "Forbidden"


class StoreUnavailable(RunwrightError):
    """The database does not answer; nothing was changed."""

    code, status, title = "store_unavailable", 503, "Database unavailable"


class OutcomeUnknown(StoreUnavailable):
    """The database went away at a commit and cannot be asked: what was wanted was done, or was not."""

    code, status, title = "outcome_unknown", 504, "Outcome unknown"


class LeaseLost(RunwrightError):
    """This node no longer owns the run; whatever it wanted to write was not written."""

    code, status, title = "lease_lost", 500, "Lease lost"


class StartRefused(RunwrightError):
    """The service will not start like this (configuration, second service, schema); exit code 78."""

    code, status, title = "start_refused", 500, "Start refused"
