"""The same machine as in the suite, for long."""

from tests.store.admission_machine import run_machine


def test_limits_hold_and_nobody_idles_whatever_happens(database_url: str) -> None:
    run_machine(database_url, examples=200, steps=40)
