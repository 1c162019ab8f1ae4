"""The same machines as in the suite, for long."""

import pytest

from tests.store.admission_machine import AdmissionMachine
from tests.store.machines import Machine, run_machine
from tests.store.store_machine import StoreMachine


@pytest.mark.parametrize(
    ("kind", "steps"), [(AdmissionMachine, 40), (StoreMachine, 50)], ids=["admission", "store"]
)
def test_what_must_hold_holds_in_any_order(database_url: str, kind: type[Machine], steps: int) -> None:
    run_machine(kind, database_url, examples=200, steps=steps)
