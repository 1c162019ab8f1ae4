"""`make hostile`: every kind of hostile block again and again beside healthy runs, on a real service, all over HTTP.

`python -m tests.hostile [kind …]`, all by default. `HOSTILE_TIMES` (20) runs of each kind, three at once, while 20
healthy runs a second go on. Each hostile one must end as it should, every healthy one complete, `/livez` answer
within 200 ms at the 99th percentile, the service not grow by 64 MiB, and nothing of a block be alive 6 s after the
last. Kinds that kill the warden come last, since they cost all others an attempt. Exit 1 when anything was wrong. A
report is left in `reports/`.
"""

import os
import random
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.hostile.blocks import KINDS, make
from tests.report import report
from tests.soak.checks import invariants_of
from tests.soak.service import Service, serving
from tests.soak.stage import spread

WORKERS, AT_ONCE, A_SECOND = 8, 3, 20
LIVEZ_S, GROWTH_MIB, GONE_S = 0.2, 64, 6.0
SETTINGS = {
    "RUNWRIGHT_INLINE": "true",
    "RUNWRIGHT_WORKERS": str(WORKERS),
    "RUNWRIGHT_KILL_GRACE_S": "2",
    "RUNWRIGHT_BLOCK_MEMORY": str(2 * 2**30),
}


@dataclass
class Watch:
    """What is seen of the service from outside while the blocks do their worst."""

    service: Service
    client: httpx.Client
    over: threading.Event = field(default_factory=threading.Event)
    healthy: list[int] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    launched_s: list[float] = field(default_factory=list)
    livez_s: list[float] = field(default_factory=list)
    pss_mib: list[float] = field(default_factory=list)

    def launch_healthy(self) -> None:
        with ThreadPoolExecutor(8) as pool:
            while not self.over.wait(1 / A_SECOND):
                pool.submit(self._launch)

    def _launch(self) -> None:
        began = time.monotonic()
        try:
            answer = self.client.post("/pipelines/healthy/pipeline_runs")
        except httpx.HTTPError as error:
            self.refused.append(repr(error))
            return
        self.launched_s.append(time.monotonic() - began)
        if answer.status_code == 201:
            self.healthy.append(int(answer.json()["id"]))
        else:
            self.refused.append(f"{answer.status_code} {answer.text[:200]}")

    def ask_livez(self) -> None:
        with httpx.Client(base_url=self.service.url, timeout=30) as client:
            while not self.over.wait(0.05):
                began = time.monotonic()
                client.get("/livez")
                self.livez_s.append(time.monotonic() - began)

    def weigh(self) -> None:
        while not self.over.wait(0.5):
            self.pss_mib.append(pss(self.service.pid))

    def left(self) -> list[int]:
        """What lives below the workers, and workers that are too many."""
        family = [pid for pid, _ in self.service.family()]
        parents = {pid: parent(pid) for pid in family}
        wardens = [pid for pid in family if parents[pid] == self.service.pid]
        workers = [pid for pid in family if parents[pid] in wardens]
        stray = [pid for pid in family if pid not in wardens and pid not in workers]
        return stray + workers[WORKERS:] + wardens[1:]


def pss(pid: int) -> float:
    """Memory of a process alone, with its share of what it shares, in MiB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def ended(client: httpx.Client, run: int, seconds: float) -> dict[str, Any] | None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = client.get(f"/pipeline_runs/{run}").json()
        if found["completed_at"] is not None:
            return dict(found)
        time.sleep(0.1)
    return None


def one(client: httpx.Client, name: str) -> list[str]:
    """Run a hostile block; what is not as it must be."""
    run = client.post(f"/pipelines/{name}/pipeline_runs").json()["id"]
    found = ended(client, run, 120)
    if found is None:
        return [f"{name}: run {run} does not end"]
    (block,) = found["block_runs"]
    last = block["attempts"][-1]
    seen = (block["status"], last["outcome"], (block.get("error") or last.get("error") or {}).get("type"))
    wrong = [] if seen in KINDS[name].ends else [f"{name}: run {run} ended as {seen}"]
    if (last.get("evidence") or {}).get("survivors"):
        wrong.append(f"{name}: run {run} has survivors: {last['evidence']}")
    return wrong


def play(watch: Watch, names: list[str], times: int, seed: int) -> list[str]:
    """All hostile blocks, in any order, those that hit all others at the end."""
    turns = [name for name in names for _ in range(times)]
    random.Random(seed).shuffle(turns)
    found: list[str] = []
    for apart in (False, True):
        with ThreadPoolExecutor(1 if apart else AT_ONCE) as pool:
            chosen = [name for name in turns if KINDS[name].apart == apart]
            for wrong in pool.map(lambda name: one(watch.client, name), chosen):
                for what in wrong:
                    print(f"  !! {what}", flush=True)
                found += wrong
    return found


def story(run: int, found: dict[str, Any] | None) -> str:
    """How a run that should have completed ended."""
    if found is None:
        return f"run {run} does not end"
    (block,) = found["block_runs"]
    tries = [attempt["outcome"] for attempt in block["attempts"]]
    return f"run {run} {found['status']} ({block.get('status_reason')}), attempts {tries}"


def judge(watch: Watch, before: float) -> list[str]:
    """What is wrong with all the rest, and the numbers."""
    ends = {run: ended(watch.client, run, 60) for run in watch.healthy}
    incomplete = [story(run, end) for run, end in ends.items() if end is None or end["status"] != "completed"]
    until = time.monotonic() + GONE_S
    while (left := watch.left()) and time.monotonic() < until:
        time.sleep(0.1)
    late = sorted(watch.livez_s)[int(len(watch.livez_s) * 0.99)]
    grown, top = pss(watch.service.pid) - before, max(watch.pss_mib) - before
    print(
        f"  healthy runs {len(watch.healthy)}, not completed {len(incomplete)}, refused {len(watch.refused)}"
    )
    print(f"  a healthy run is launched in {spread(watch.launched_s)}")
    print(f"  /livez answers in {spread(watch.livez_s)}")
    print(
        f"  the service has {before:.0f} MiB, {top:+.0f} at most meanwhile, {grown:+.0f} in the end; left {left}"
    )
    return [
        *([f"healthy runs that did not complete: {incomplete[:5]}"] if incomplete else []),
        *([f"launches refused: {watch.refused[:3]}"] if watch.refused else []),
        *([f"/livez p99 {late:.3f} s"] if late > LIVEZ_S else []),
        *([f"the service grew by {top:.0f} MiB"] if top > GROWTH_MIB else []),
        *([f"processes live on: {left}"] if left else []),
    ]


def main(names: list[str]) -> int:
    """1 when anything was wrong, 2 for a kind that is not there."""
    if unknown := set(names) - KINDS.keys():
        print(f"no such kind: {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
        return 2
    with report("hostile"):
        return _all(names)


def _all(names: list[str]) -> int:
    times, seed = int(os.environ.get("HOSTILE_TIMES") or 20), int(os.environ.get("HOSTILE_SEED") or 1)
    with tempfile.TemporaryDirectory(prefix="rw-hostile-", ignore_cleanup_errors=True) as top:
        folder = Path(top)
        (folder / "ledger").mkdir()
        service = Service(make(folder / "project"), folder / "ledger", SETTINGS)
        print(f"hostile: {len(names or KINDS)} kinds x {times}, load {os.getloadavg()[0]:.1f}", flush=True)
        began = time.monotonic()
        with serving(service) as client:
            watch = Watch(service, client)
            for _ in range(50):  # what the first runs bring into memory is not growth
                watch._launch()
            before = pss(service.pid)
            threads = [
                threading.Thread(target=t, daemon=True)
                for t in (watch.launch_healthy, watch.ask_livez, watch.weigh)
            ]
            for thread in threads:
                thread.start()
            found = play(watch, names or list(KINDS), times, seed)
            watch.over.set()
            for thread in threads:
                thread.join()
            found += judge(watch, before)
            code = service.terminate()
            found += [f"exit code {code}"] if code else []
            found += [f"processes live on after the stop: {left}"] if (left := service.family()) else []
            found += invariants_of(f"sqlite:///{service.home / 'runwright.db'}")
            found += [line for line in service.log.read_text().splitlines() if "Traceback" in line][:5]
    for what in found:
        print(f"  !! {what}")
    print(
        f"hostile: {'all well' if not found else f'{len(found)} faults'} ({time.monotonic() - began:.0f} s)"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
