"""Scenario: many clients on all replicas start runs of a pipeline that allows three at once."""

from dataclasses import dataclass, field

from tests.soak import checks, rows
from tests.soak.load import Load
from tests.soak.stage import Stage, spread

CAP = 3
#: no run waits so long while a place is free
BESIDE_S = 2.0


@dataclass
class Limit:
    """`runs` runs as fast as `starters` clients can ask for them."""

    stage: Stage
    runs: int
    starters: int = 16
    most: int = 0
    idle_s: list[float] = field(default_factory=list)

    def run(self) -> list[str]:
        stage = self.stage
        stage.say(
            f"{self.runs} runs of which {CAP} may run at once, {self.starters} starters on {stage.replicas} nodes"
        )
        stage.start()
        load = Load(
            stage.urls,
            seed=stage.seed,
            count=self.runs,
            per_s=10_000,
            shapes={"three_at_once": 1},
            threads=self.starters,
        )
        load.start()
        try:
            stage.settle(load)
        finally:
            load.abandon()
            stage.end()
        self.most = checks.look(stage.database, lambda tx: rows.most_at_once(tx, "three_at_once"))
        self.idle_s = checks.look(
            stage.database, lambda tx: rows.idle_beside_a_queue(tx, "three_at_once", CAP)
        )
        per_node = checks.look(stage.database, rows.runs_per_node)
        stage.say(f"at once at most {self.most}; started by each node: {per_node}")
        stage.say(
            f"a place was free while a run waited: {spread(self.idle_s)}, together {sum(self.idle_s):.1f} s"
        )
        stage.note([f"{self.most} ran at once"] if self.most > CAP else [])
        stage.in_time(self.idle_s, BESIDE_S, "a run waited beside a free place for")
        return stage.found
