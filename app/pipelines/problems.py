"""What can be wrong with a definition, always with the place where it is."""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from app.errors import InvalidInput

#: Ends a sentence about what does not run here.
ABOUT = "; the guide 'What Runwright does not do' says what to use instead"


@dataclass(frozen=True, slots=True)
class DefinitionError:
    """Why a definition on disk cannot be used. `file` is relative to the project folder.

    >>> str(DefinitionError("unknown upstream block 'b'", "pipelines/etl/metadata.yaml", 12))
    "pipelines/etl/metadata.yaml:12: unknown upstream block 'b'"
    """

    message: str
    file: str
    line: int | None = None

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.message}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One remark of `validate`: an error stops the pipeline or trigger, a warning does not."""

    level: Literal["error", "warning"]
    message: str
    file: str
    line: int | None = None

    def __str__(self) -> str:
        return str(DefinitionError(self.message, self.file, self.line))


class ProjectInvalid(InvalidInput):
    """The project's own `metadata.yaml` has a fault; the detail gives file and line."""

    code, title = "project_invalid", "Project definition is invalid"


class BadDefinition(Exception):
    """Raised while a file is read; never leaves this package. `pointer` is the key at fault (RFC 6901)."""

    def __init__(self, message: str, file: str, line: int | None = None, pointer: str = "") -> None:
        super().__init__(message)
        self.error = DefinitionError(message, file, line)
        self.pointer = pointer


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence that names the nearest known word, or nothing.

    >>> did_you_mean("data_loadr", ["data_loader", "sensor"])
    " (did you mean 'data_loader'?)"
    """
    near = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean '{near[0]}'?)" if near else ""
