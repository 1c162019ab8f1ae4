"""What is measured of a running service. Times in seconds."""

import asyncio
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.client import API, Connection, connect
from benchmarks.limits import Limits
from benchmarks.service import CHAIN, WIDE, Service, stamps

TRIGGERS, CHAINS = 200, 5
RUNS, CONNECTIONS = 500, 20
PROBES, PROBE_S = 200, 0.005
#: Workers that the limit of the many runs is computed for: blocks that end together share a commit.
SHARING = 8
_SETTLE_S = 2.0
#: Between two looks whether all is over: seldom, since each look costs what is measured.
_LOOK_S = 0.02

Floor = Callable[[Limits], float]


@dataclass(frozen=True, slots=True)
class Figure:
    """A line of the table. `floor` computes the physical limit; more is better where `higher`."""

    name: str
    unit: str
    budget: float
    floor: Floor
    higher: bool = False


FIGURES = {
    "start_empty": Figure("start to ready, empty database", "s", 2.2, lambda m: m.imports),
    "start": Figure("start to ready", "s", 2.2, lambda m: m.imports),
    "idle": Figure("idle: service + warden", "MiB", 130, lambda m: m.imports_mib),
    "idle_all": Figure("idle: service + warden + 2 workers", "MiB", 145, lambda m: m.imports_mib),
    "first_p50": Figure("trigger to first line, p50", "ms", 4, lambda m: 1e3 * _first(m)),
    "first_p95": Figure("trigger to first line, p95", "ms", 10, lambda m: 1e3 * _first(m)),
    "chain": Figure(f"chain of {CHAIN} blocks", "ms", 150, lambda m: 1e3 * _chain(m)),
    "runs": Figure(f"{RUNS} runs of {WIDE} blocks", "runs/s", 120, lambda m: RUNS / _many(m), True),
    "runs_two": Figure(
        f"  the same on two replicas ({WIDE} blocks)", "runs/s", 120, lambda m: RUNS / _many(m), True
    ),
    "runs_ratio": Figure("  two replicas to one", "times", 1, lambda m: 1.0, True),
    "runs_cpu": Figure("  service CPU a run", "ms", 5, lambda m: 1e3 * m.echo),
    "livez_p99": Figure("  /livez meanwhile, p99", "ms", 100, lambda m: 1e3 * m.echo),
    "loaded": Figure("service + warden after the loads", "MiB", 150, lambda m: m.imports_mib),
}


def _first(m: Limits) -> float:
    return m.echo + m.fsync + m.process


def _chain(m: Limits) -> float:
    return m.echo + CHAIN * (m.fsync + m.process)


def _many(m: Limits) -> float:
    return RUNS * (m.echo + WIDE * (m.process + m.fsync / SHARING))


async def all_of(service: Service) -> dict[str, float]:
    """Every figure of a service that has just started on an empty database, but those of its start."""
    await asyncio.sleep(_SETTLE_S)
    found = {
        "idle": service.pss_mib("service", "warden"),
        "idle_all": service.pss_mib("service", "warden", "workers"),
    }
    found |= await first_line(service.port, service.folder)
    found["chain"] = await chain(service.port)
    cpu = service.cpu_s()
    found |= await many_runs([service.port])
    found["runs_cpu"] = (service.cpu_s() - cpu) / RUNS * 1e3
    found["loaded"] = service.pss_mib("service", "warden")
    return found


async def first_line(port: int, folder: Path) -> dict[str, float]:
    """From the request that triggers a run to the first line of its block."""
    took, come = [], stamps(folder)
    async with await connect(port) as connection:
        for n in range(TRIGGERS + 10):
            began = time.monotonic_ns()
            run = await connection.trigger("first")
            took.append((await come.next() - began) / 1e6)
            await _end_of(connection, run["id"])
            if n == 9:
                took.clear()  # the first ones have warmed up
    come.close()
    cuts = statistics.quantiles(took, n=20)
    return {"first_p50": statistics.median(took), "first_p95": cuts[18]}


async def chain(port: int) -> float:
    """From the request to the answer that a run of blocks one after the other is over."""
    took = []
    async with await connect(port) as connection:
        for _ in range(CHAINS + 1):
            began = time.perf_counter()
            run = await connection.trigger("chain", "Prefer: wait=30")
            took.append((time.perf_counter() - began) * 1e3)
            assert run["status"] == "completed", run
    return statistics.median(took[1:])


async def two_replicas(one: Service, other: Service, alone: float) -> dict[str, float]:
    """The many runs again, asked for at two replicas of one database in turn; `alone`: what one of them reached."""
    await many_runs([other.port])  # as warm as the first
    reached = (await many_runs([one.port, other.port]))["runs"]
    return {"runs_two": reached, "runs_ratio": reached / alone}


async def many_runs(ports: list[int]) -> dict[str, float]:
    """Many short runs as fast as they can be asked for, and whether the service still answers meanwhile."""
    port = ports[0]
    async with asyncio.TaskGroup() as group:
        probing = group.create_task(_probe(port))
        began = time.perf_counter()
        asking = (_trigger_some(ports[n % len(ports)]) for n in range(CONNECTIONS))
        ids = await asyncio.gather(*asking)
        async with await connect(port) as connection:
            while not await _all_over(connection):
                await asyncio.sleep(_LOOK_S)
        took = time.perf_counter() - began
    await _check(port, {run_id for some in ids for run_id in some})
    return {"runs": RUNS / took, "livez_p99": statistics.quantiles(probing.result(), n=100)[98]}


async def _trigger_some(port: int) -> list[int]:
    async with await connect(port) as connection:
        return [(await connection.trigger("three"))["id"] for _ in range(RUNS // CONNECTIONS)]


async def _probe(port: int) -> list[float]:
    took = []
    async with await connect(port) as connection:
        for _ in range(PROBES):
            began = time.perf_counter()
            (await connection.ask("GET", "/livez")).json()
            took.append((time.perf_counter() - began) * 1e3)
            await asyncio.sleep(PROBE_S)
    return took


async def _all_over(connection: Connection) -> bool:
    page = (await connection.ask("GET", f"{API}/pipeline_runs?status=initial&status=running&limit=1")).json()
    return not page["items"]


async def _check(port: int, ids: set[int]) -> None:
    """Every run that was asked for has completed."""
    completed, cursor = set(), ""
    async with await connect(port) as connection:
        while not ids <= completed:
            path = f"{API}/pipeline_runs?pipeline_uuid=three&status=completed&limit=200{cursor}"
            page = (await connection.ask("GET", path)).json()
            completed |= {run["id"] for run in page["items"]}
            if page["next_cursor"] is None:
                break
            cursor = f"&cursor={page['next_cursor']}"
    if len(ids) != RUNS or not ids <= completed:
        raise RuntimeError(f"{len(ids)} runs of {RUNS} were made, {len(ids - completed)} have not completed")


async def _end_of(connection: Connection, run_id: int) -> None:
    while (await connection.ask("GET", f"{API}/pipeline_runs/{run_id}")).json()["completed_at"] is None:
        await asyncio.sleep(0.001)
