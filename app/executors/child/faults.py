"""What went wrong in a block, said so that its author finds the line."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

#: the folder of the executors: frames in it are ours, not the block's
_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_MESSAGE_LIMIT = 8 * 1024
_TRACEBACK_LIMIT = 64 * 1024


class Terminated(BaseException):
    """Raised in user code when its process is asked to end, so that `finally` and context managers run."""


class BlockFault(Exception):
    """A fault that we found ourselves; subclasses name it. `line` is in the block's file."""

    line: int | None = None


class NoFunction(BlockFault):
    """The file has no function under the decorator of the block's type."""


class WrongArguments(BlockFault):
    """The function does not take as many inputs as there are upstream blocks."""


class TestsFailed(BlockFault):
    """A function under `@test` raised AssertionError."""


class InputMissing(BlockFault):
    """An output that an upstream block left is not there any more, or cannot be opened."""


class OutputNotStorable(BlockFault):
    """What the block returned cannot be written down."""


def safe(text: str) -> str:
    """The text without NUL and lone surrogates, which neither a database nor UTF-8 takes.

    >>> safe("a\\x00b\\ud800")
    'a\\\\x00b\\\\ud800'
    """
    if "\0" in text:
        text = text.replace("\0", "\\x00")
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def relative(file: str, project: str) -> str:
    """`file` seen from the project folder if it lies inside it, else unchanged."""
    inside = file.startswith(project + os.sep)
    return file[len(project) + 1 :].replace(os.sep, "/") if inside else file


def describe(error: BaseException, project: str, block_file: str) -> dict[str, Any]:
    """Type, message, place and traceback of an error, JSON-serialisable (`BlockError`)."""
    file, line = _place(error, project, block_file)
    return {
        "type": _type_name(type(error)),
        "message": safe(_message(error))[:_MESSAGE_LIMIT],
        "file": None if file is None else safe(relative(file, project)),
        "line": line,
        "traceback": "" if isinstance(error, BlockFault) else safe(_traceback(error))[-_TRACEBACK_LIMIT:],
    }


def innermost_line(error: BaseException, block_file: str) -> int | None:
    """The line of the innermost frame of the error that lies in the block's own file."""
    lines = [line for file, line in _frames(error) if file == block_file]
    return lines[-1] if lines else None


def _type_name(kind: type) -> str:
    module = kind.__module__ or ""
    if module == "builtins" or module.startswith("_runwright") or issubclass(kind, BlockFault):
        return kind.__qualname__
    return safe("%s.%s" % (module, kind.__qualname__))


def _message(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return "the block called sys.exit(%s)" % ("" if error.code is None else repr(error.code))
    try:
        if isinstance(error, SyntaxError):
            return str(error.msg)
        return str(error)
    except BaseException as broken:
        return "<its __str__ raised %s>" % type(broken).__name__


def _frames(error: BaseException) -> Iterator[tuple[str, int]]:
    traceback = error.__traceback__
    while traceback is not None:
        yield traceback.tb_frame.f_code.co_filename, traceback.tb_lineno
        traceback = traceback.tb_next


def _place(error: BaseException, project: str, block_file: str) -> tuple[str | None, int | None]:
    if isinstance(error, BlockFault):
        return block_file, error.line
    if isinstance(error, SyntaxError) and error.filename and os.path.isabs(error.filename):
        return error.filename, error.lineno
    frames = [frame for frame in _frames(error) if not frame[0].startswith(_HERE)]
    own = [frame for frame in frames if _is_own(frame[0], project)]
    innermost = own or frames
    return innermost[-1] if innermost else (block_file, None)


def _is_own(file: str, project: str) -> bool:
    return file.startswith(project + os.sep) and os.sep + "site-packages" + os.sep not in file


def _traceback(error: BaseException) -> str:
    import traceback

    try:
        tree = traceback.TracebackException.from_exception(error)
        _trim(tree, set())
        return "".join(tree.format())
    except BaseException as broken:
        # An error object may be as broken as it likes (its attributes raise, it refers to itself).
        return "<no traceback: %s while formatting it>" % type(broken).__name__


def _trim(tree: Any, seen: set[int]) -> None:
    if tree is None or id(tree) in seen:
        return
    seen.add(id(tree))
    tree.stack[:] = [frame for frame in tree.stack if not frame.filename.startswith(_HERE)]
    _trim(tree.__cause__, seen)
    _trim(tree.__context__, seen)
    for inner in getattr(tree, "exceptions", None) or ():
        _trim(inner, seen)
