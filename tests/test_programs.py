"""The long proofs can be started, though the suite starts none of them: nothing that they import is missing."""

from importlib import import_module

import pytest

PROGRAMS = (
    "benchmarks",
    "tests.failpoints",
    "tests.hostile",
    "tests.simulation",
    "tests.simulation.cluster",
    "tests.soak",
)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_imports_what_is_there(name: str) -> None:
    assert callable(import_module(f"{name}.__main__").main)
