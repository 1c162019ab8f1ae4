"""Exit codes that scripts may rely on, and how an error becomes one."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import typer

from app.errors import RunwrightError, StartRefused, sentence


class Exit(IntEnum):
    """Why the program ended."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    AUTH = 4
    CONFLICT = 5
    TIMEOUT = 6
    UNREACHABLE = 7
    #: EX_CONFIG of sysexits.h: it will not start like this
    REFUSED = 78
    INTERRUPTED = 130


_BY_CODE = {
    "port_taken": Exit.FAILED,
    "pipeline_invalid": Exit.FAILED,
    "project_invalid": Exit.FAILED,
    "unknown_block": Exit.NOT_FOUND,
    "wait_timeout": Exit.TIMEOUT,
}
_BY_STATUS = {
    400: Exit.USAGE,
    401: Exit.AUTH,
    403: Exit.AUTH,
    404: Exit.NOT_FOUND,
    409: Exit.CONFLICT,
    412: Exit.CONFLICT,
    422: Exit.USAGE,
    502: Exit.UNREACHABLE,
    503: Exit.UNREACHABLE,
    504: Exit.UNREACHABLE,
}


def code_of(error: RunwrightError) -> Exit:
    """The exit code of an error.

    >>> code_of(StartRefused("no key"))
    <Exit.REFUSED: 78>
    """
    if error.code in _BY_CODE:
        return _BY_CODE[error.code]
    if isinstance(error, StartRefused):
        return Exit.REFUSED
    return _BY_STATUS.get(error.status, Exit.FAILED)


@contextmanager
def explained() -> Iterator[None]:
    """Turn an error of ours into one clear message on stderr and its exit code."""
    try:
        yield
    except RunwrightError as error:
        refused = error
    except BaseExceptionGroup as group:  # what a task group had in it
        if (found := first_of_ours(group)) is None:
            raise
        refused = found
    except KeyboardInterrupt:
        raise typer.Exit(Exit.INTERRUPTED) from None
    else:
        return
    say(sentence(refused.detail), sentence(refused.hint))
    raise typer.Exit(code_of(refused))


def first_of_ours(group: BaseExceptionGroup[BaseException]) -> RunwrightError | None:
    """The error of ours in a group that holds nothing else."""
    ours, others = group.split(RunwrightError)
    while isinstance(ours, BaseExceptionGroup) and others is None:
        if isinstance(ours.exceptions[0], RunwrightError):
            return ours.exceptions[0]
        ours = ours.exceptions[0] if isinstance(ours.exceptions[0], BaseExceptionGroup) else None
    return None


def say(message: str, hint: str = "") -> None:
    """An error on stderr, with the way out."""
    typer.echo(f"runwright: {message}", err=True)
    if hint:
        typer.echo(f"  {hint}", err=True)
