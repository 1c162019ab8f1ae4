"""The same machine as in the suite, for long."""

from tests.store.store_machine import run_machine


def test_rows_move_as_they_must_in_any_order(database_url: str) -> None:
    run_machine(database_url, examples=200, steps=50)
