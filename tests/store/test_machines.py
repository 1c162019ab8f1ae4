"""What must hold holds in whatever order things come: see `admission_machine.py` and `store_machine.py`."""

import pytest

from tests.store.admission_machine import AdmissionMachine
from tests.store.machines import Machine, run_machine
from tests.store.store_machine import StoreMachine


@pytest.mark.parametrize(
    ("kind", "examples", "steps"),
    [(AdmissionMachine, 12, 20), (StoreMachine, 8, 25)],
    ids=["admission", "store"],
)
def test_what_must_hold_holds_in_any_order(
    database_url: str, kind: type[Machine], examples: int, steps: int
) -> None:
    run_machine(kind, database_url, examples=examples, steps=steps)
