"""A short version of `make simulate`, and the proof that it finds what is wrong."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.cluster.bugs import BUGS

ROOT = Path(__file__).resolve().parents[3]
#: Seeds within which each fault that was put in is found.
SEEDS = 20


def simulated(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """In a process of its own: a replay asks for hashes that this one was not started with."""
    command = [sys.executable, "-m", "tests.simulation.cluster", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("first", [1, 11])
def test_ten_clusters_live_through_their_faults(first: int) -> None:
    done = simulated("--first", str(first), "--seeds", "10")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 clusters" in done.stdout


@pytest.mark.parametrize("bug", BUGS)
def test_a_fault_that_was_put_in_is_found(bug: str) -> None:
    done = simulated("--bug", bug, "--seeds", str(SEEDS))
    assert done.returncode == 1, f"{SEEDS} seeds saw nothing of it: {done.stdout}{done.stderr}"
    assert f"--bug {bug}" in done.stdout.splitlines()[-1], done.stdout + done.stderr
