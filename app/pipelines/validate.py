"""Everything that can be said about a project without running it; behind the command `validate`."""

import ast
import warnings
from pathlib import Path
from typing import Literal

from app.models.pipeline import Pipeline
from app.pipelines.catalogue import Catalogue
from app.pipelines.files import is_file, read_text
from app.pipelines.problems import ABOUT, BadDefinition, DefinitionError, Finding

#: Files of Mage that nothing here reads.
_UNREAD = {"global_hooks.yaml": "global hooks", "global_data_products.yaml": "global data products"}


def findings(catalogue: Catalogue) -> list[Finding]:
    """The faults and warnings of a project: its file, pipelines, triggers, and the syntax of block files.

    Errors first, each in the order of files. An empty list is a clean bill. Call it after a refresh.
    """
    errors = [catalogue.project_error] if catalogue.project_error else []
    errors += [
        entry.error for entry in catalogue.entries() if entry.error not in (None, catalogue.project_error)
    ]
    errors += catalogue.trigger_errors()
    pipelines = [entry.pipeline for entry in catalogue.entries() if entry.pipeline]
    errors += _syntax_errors(catalogue.root, pipelines)
    found = [Finding("error", error.message, error.file, error.line) for error in errors if error]
    found += [
        _placed("error", t.error) for t in catalogue.triggers() if t.error and not catalogue.project_error
    ]
    remarks = [*catalogue.project.warnings, *(w for entry in catalogue.entries() for w in entry.warnings)]
    remarks += [
        f"{file}: {what} are not supported{ABOUT}"
        for file, what in _UNREAD.items()
        if is_file(catalogue.root, file)
    ]
    return [*found, *(_placed("warning", remark) for remark in dict.fromkeys(remarks))]


def _syntax_errors(root: Path, pipelines: list[Pipeline]) -> list[DefinitionError]:
    files = dict.fromkeys(block.file for pipeline in pipelines for block in pipeline.blocks)
    return [error for file in files if (error := _syntax_error(root, file))]


def _syntax_error(root: Path, file: str) -> DefinitionError | None:
    """Why a block's file is no Python. It is parsed, never imported."""
    try:
        text = read_text(root, file)[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Python would warn about is the author's business
            ast.parse(text, file)
    except SyntaxError as error:
        return DefinitionError(f"not valid Python: {error.msg}", file, error.lineno)
    except (ValueError, RecursionError, MemoryError) as error:
        return DefinitionError(f"not valid Python: {error}", file)
    except BadDefinition as bad:
        return bad.error
    except OSError as error:
        return DefinitionError(f"cannot be read: {error.strerror}", file)
    return None


def _placed(level: Literal["error", "warning"], text: str) -> Finding:
    """A finding from a text that begins with its place, `file:line: message`."""
    place, _, message = text.partition(": ")
    file, _, line = place.rpartition(":")
    return Finding(level, message, file, int(line)) if line.isdigit() else Finding(level, message, place)
