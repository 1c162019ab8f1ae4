"""Limits hold whatever happens, and nobody waits beside a free place: see `admission_machine.py`."""

from tests.store.admission_machine import run_machine


def test_limits_hold_and_nobody_idles_whatever_happens(database_url: str) -> None:
    run_machine(database_url, examples=12, steps=20)
