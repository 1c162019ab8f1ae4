"""Kill the service in the middle of a dynamic pipeline, again and again: no child is done twice, none is forgotten.

`python -m tests.soak fanout`; with `SOAK_DATABASE=postgres` on the other database. Each run has a dynamic block whose
items are on disk, children, children of children, a reduced block, a condition that holds, one that does not, and
callbacks of children and of the reduced block.
"""

import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from sqlalchemy import Connection, text

from app.scheduler.progress import MAX_LOST
from app.store.db import loads
from tests.soak import checks, project
from tests.soak.service import Service, left_after, logged, read_ledger, wait_for

CHILDREN = 24
#: so much that the items are a file and not part of a reference
PADDING = 6_000
WANTED = sum((n + 1) * 10 for n in range(CHILDREN))

_SPREAD = f"""
@data_loader
def spread(*args, **kwargs):
    items = [{{"n": n, "padding": "x" * {PADDING}}} for n in range({CHILDREN})]
    return [items, [{{"block_uuid": f"n{{n}}", "plus": 1}} for n in range({CHILDREN})]]
"""
_WORK = """
from utils.effects import effect

@transformer
def work(item, *args, **kwargs):
    name = f"work:n{item['n']}"
    with effect({**kwargs, "block_uuid": name}, 0.04):
        return item["n"] + kwargs["plus"]
"""
_TIMES = """
from utils.effects import effect

@transformer
def times(number, *args, **kwargs):
    with effect({**kwargs, "block_uuid": f"times:n{number - 1}"}, 0.02):
        return number * 10
"""
_TOTAL = """
from utils.effects import effect

@data_exporter
def total(numbers, *args, **kwargs):
    with effect(kwargs, 0.1):
        return sum(numbers)
"""
_GUARDED = """
@custom
def guarded(*args, **kwargs):
    return "ran"
"""
_HOLDS = """
@condition
def holds(*args, **kwargs):
    return kwargs["parent_block_uuid"] == "guarded"
"""
_TOLD = """
import time

@callback
def told(data, **kwargs):
    time.sleep(0.01)
    print(f"told of {data}")
"""
_PIPELINE = """
blocks:
- {uuid: spread, type: data_loader, upstream_blocks: [], configuration: {dynamic: true}}
- {uuid: work, type: transformer, upstream_blocks: [spread]}
- {uuid: times, type: transformer, upstream_blocks: [work], configuration: {reduce_output: true}}
- {uuid: total, type: data_exporter, upstream_blocks: [times]}
- {uuid: guarded, type: custom, upstream_blocks: [total]}
- {uuid: not_today, type: custom, upstream_blocks: [spread], configuration: {file_path: custom/guarded.py}}
conditionals:
- {uuid: holds, type: conditional, upstream_blocks: [guarded, not_today]}
callbacks:
- {uuid: told, type: callback, upstream_blocks: [times, total]}
"""
FILES = {
    "metadata.yaml": "name: fanout\n",
    "utils/__init__.py": "",
    "utils/effects.py": project.EFFECTS,
    "data_loaders/spread.py": _SPREAD,
    "transformers/work.py": _WORK,
    "transformers/times.py": _TIMES,
    "data_exporters/total.py": _TOTAL,
    "custom/guarded.py": _GUARDED,
    "conditionals/holds.py": _HOLDS,
    "callbacks/told.py": _TOLD,
    "pipelines/fanout/metadata.yaml": _PIPELINE,
}
NAMES = [f"n{n}" for n in range(CHILDREN)]
STATUSES = {
    **dict.fromkeys(("spread", "work", "times", "total", "guarded"), "completed"),
    **{f"{block}:{name}": "completed" for block in ("work", "times") for name in NAMES},
    "not_today": "condition_failed",
    **{f"not_today:{name}": "condition_failed" for name in NAMES},
}


@dataclass
class Fanout:
    """`kills` kills in a folder of its own; `found` is everything that was wrong."""

    folder: Path
    kills: int
    seed: int
    database: str = ""
    found: list[str] = field(default_factory=list)
    runs: list[int] = field(default_factory=list)
    #: how many kills met a run in the middle
    met: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        ledger = self.folder / "ledger"
        ledger.mkdir()
        made = project.write(self.folder / "project", FILES)
        home = self.folder / "home"
        given = {"RUNWRIGHT_HOME": str(home), "RUNWRIGHT_WORKERS": "4", "RUNWRIGHT_DRAIN_S": "5"}
        self._service = Service(made, ledger, {**given, "RUNWRIGHT_DATABASE_URL": self.database})
        self._url = self.database or f"sqlite:///{home / 'runwright.db'}"

    def run(self) -> list[str]:
        """Kill, restart, check; then let everything end and look at each run."""
        service = self._service
        service.start()
        try:
            for number in range(1, self.kills + 1):
                self._round(number)
            service.wait_ready()
            wait_for(lambda: not checks.look(self._url, checks.live), 120, "every run is over")
            if code := service.terminate():
                self.found.append(f"exit code {code}")
        finally:
            if service.process is not None and service.process.poll() is None:
                service.kill()
        self._settle()
        return self.found

    def _round(self, number: int) -> None:
        """Have a run going, kill at any moment of it, look at once."""
        service = self._service
        service.wait_ready()
        if not checks.look(self._url, checks.live):
            answer = httpx.post(f"{service.url}/api/v1/pipelines/fanout/pipeline_runs", timeout=30)
            self.runs.append(answer.json()["id"])
        time.sleep(self._random.uniform(0.0, 0.6))
        family = service.family()
        service.kill()
        wrong = checks.invariants_of(self._url)
        met = checks.look(self._url, checks.running)
        self.met += bool(met)
        service.start()
        wrong += left_after(family)
        self.found += [f"kill {number}: {what}" for what in wrong]

    def _settle(self) -> None:
        self.found += checks.invariants_of(self._url)
        found = checks.look(self._url, checks.facts)
        for run in self.runs:
            self.found += checks.look(self._url, lambda tx, run=run: _wrong(tx, run, found))  # type: ignore[misc]
        self.found += [
            f"overlap: {line}" for line in read_ledger(self._service.ledger) if line["kind"] == "overlap"
        ]
        self.found += logged([self._service])


def _wrong(tx: Connection, run: int, found: checks.Facts) -> list[str]:
    """Everything that is not as it must be with one run."""
    excused = found.lost[run] >= MAX_LOST
    if (status := found.statuses[run]) != "completed":
        return [] if excused and status == "failed" else [f"run {run} is {status}: {found.reasons[run]}"]
    rows = tx.execute(
        text("SELECT id, block_uuid, status, outputs FROM block_run WHERE pipeline_run_id = :run"),
        {"run": run},
    ).all()
    statuses = {row.block_uuid: row.status for row in rows}
    wrong = [] if statuses == STATUSES and len(rows) == len(STATUSES) else [f"run {run}: {statuses}"]
    (total,) = [loads(row.outputs) for row in rows if row.block_uuid == "total"]
    if [ref.get("value") for ref in total] != [WANTED]:
        wrong.append(f"run {run}: the total is {total}, not {WANTED}")
    return wrong + _attempts(tx, run)


def _attempts(tx: Connection, run: int) -> list[str]:
    """Exactly one completed attempt a block and child, none of a template; one completed call of each callback."""
    query = (
        "SELECT b.block_uuid, a.hook FROM block_attempt a JOIN block_run b ON b.id = a.block_run_id"
        " WHERE b.pipeline_run_id = :run AND a.outcome = 'completed'"
    )
    done = Counter((row.block_uuid, row.hook) for row in tx.execute(text(query), {"run": run}))
    once = [
        "spread",
        "total",
        "guarded",
        *(f"{block}:{name}" for block in ("work", "times") for name in NAMES),
    ]
    told = ["total", *(f"times:{name}" for name in NAMES)]
    asked = ["guarded", *(f"not_today:{name}" for name in NAMES)]
    wanted = Counter([(name, None) for name in once])
    wanted += Counter([(name, "callback:told:success") for name in told])
    wanted += Counter([(name, "condition:holds") for name in asked])
    return (
        [] if done == wanted else [f"run {run}: {(done - wanted) or '-'} too many, {wanted - done} missing"]
    )
