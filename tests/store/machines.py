"""What the state machines share: a database, two nodes on it, and how Hypothesis is told to drive them.

`admission_machine.py` and `store_machine.py` have the rules. `test_machines.py` runs them for some seconds,
`tests/fuzz` for long.
"""

import asyncio
from typing import Any, ClassVar

from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test
from sqlalchemy import Table

from app.store.db import Tx
from app.store.opening import open_database
from tests.store.conftest import Bench


class Machine(RuleBasedStateMachine):
    """Rows of one database, and two nodes."""

    runner: asyncio.Runner
    bench: Bench
    #: what an example begins without, those that refer to others first
    tables: ClassVar[tuple[Table, ...]]

    def call(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        return self.runner.run(self.bench.db.write(function, *args, **kwargs))

    def wipe(self) -> None:
        """Begin an example."""

        def wipe(tx: Tx) -> None:
            for table in self.tables:
                tx.execute(table.delete())

        self.call(wipe)
        self.nodes = [self.runner.run(self.bench.node()) for _ in range(2)]


def run_machine(kind: type[Machine], url: str, *, examples: int, steps: int) -> None:
    """Run it on a migrated database."""
    with asyncio.Runner() as runner:
        db = open_database(url)
        runner.run(db.open())
        try:
            run_state_machine_as_test(
                type("Here", (kind,), {"runner": runner, "bench": Bench(db, "")}),
                settings=settings(
                    max_examples=examples,
                    stateful_step_count=steps,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(db.close())
