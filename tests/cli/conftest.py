"""The programs as people start them, and the same command line in this process, on a small project."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from typer.testing import CliRunner

from app.cli.root import program
from tests.api.project import make_project

BIN = Path(sys.executable).parent
Invoke = Callable[..., tuple[int, str, str]]


def environment(**more: str) -> dict[str, str]:
    """The environment without anything that would change what the programs do."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RUNWRIGHT_")}
    kept.pop("PORT", None)
    return {**kept, "NO_COLOR": "1", **more}


def execute(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run an installed program to its end."""
    name, *arguments = command
    return subprocess.run(
        [BIN / str(name), *arguments], capture_output=True, text=True, timeout=60, env=environment()
    )


@pytest.fixture
def invoke() -> Iterator[Invoke]:
    """The command line in this process: exit code, stdout, stderr."""
    root = logging.getLogger()
    before = root.handlers[:], root.level

    def invoke(*arguments: str | Path, **env: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(program, [str(argument) for argument in arguments], env=env)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.stdout, done.stderr

    yield invoke
    root.handlers[:], level = before
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_project(tmp_path / "project")
