"""Whether a service grows: `python -m tests.soak.growth [runs]` (5,000) drives runs of every kind through one.

It prints at intervals what the process holds (memory, descriptors, tasks, threads, objects) and judges by the slope
over the second half, when caches are full. The service, on SQLite, is in this process, so that its objects can be
counted; it prunes while it runs. `GROWTH_KEEP` (200): runs kept a pipeline.
"""

import asyncio
import ctypes
import gc
import os
import sys
import tempfile
import threading
import urllib.parse
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import Any

import httpx

from app.main import create_app
from app.settings import load

FILES = {
    "metadata.yaml": "name: growth\n",
    "pipelines/inline/metadata.yaml": """
        isolation: inline
        blocks:
        - {uuid: a, type: custom, upstream_blocks: []}
        - {uuid: b, type: custom, upstream_blocks: [a]}
        """,
    "pipelines/workers/metadata.yaml": """
        blocks:
        - {uuid: big, type: custom, upstream_blocks: []}
        - {uuid: reads, type: custom, upstream_blocks: [big]}
        """,
    "pipelines/fails/metadata.yaml": """
        isolation: inline
        blocks:
        - {uuid: fails, type: custom, upstream_blocks: [], retry_config: {retries: 1, delay: 0}}
        """,
    "pipelines/waits/metadata.yaml": """
        isolation: inline
        blocks:
        - {uuid: later, type: sensor, upstream_blocks: [], configuration: {poke_interval: 1}}
        """,
    "custom/a.py": "@custom\nasync def a(*args, **kwargs):\n    print('a')\n    return 1\n",
    "custom/b.py": "@custom\nasync def b(one, *args, **kwargs):\n    print('b')\n    return one\n",
    "custom/big.py": "@custom\ndef big(*args, **kwargs):\n    print('big')\n    return {1: 'x' * 2000}\n",
    "custom/reads.py": "@custom\ndef reads(one, *args, **kwargs):\n    return len(one[1])\n",
    "custom/fails.py": "@custom\nasync def fails(*args, **kwargs):\n    raise ValueError('as always')\n",
    "sensors/later.py": """
        seen = {}

        @sensor
        async def later(*args, **kwargs):
            return kwargs['pipeline_run_id'] in seen or seen.setdefault(kwargs['pipeline_run_id']) is not None
        """,
}
#: how often each kind comes; the sensor is told to be there
MIX: Sequence[str] = ("inline", "inline", "workers", "fails", "inline", "workers")
#: Statement caches and malloc's arenas are full after half as many.
SETTLED = 5_000
#: What a run may leave behind. Python's blocks and objects are exact; malloc's bytes settle slowly, and the process
#: holds besides what its arenas have free in between (thousands of runs long some KiB a run).
MOST = {"blocks": 0.5, "objects": 0.5, "native": 0.5, "pss": 2.0, "fds": 0.01, "tasks": 0.01, "threads": 0.01}


@dataclass(frozen=True, slots=True)
class Sample:
    """What the process holds after so many runs. Memory in KiB.

    `blocks` are Python's allocations, `native` what malloc has given out besides its arenas' free parts.
    """

    runs: int
    rss: int
    pss: int
    fds: int
    tasks: int
    threads: int
    objects: int
    blocks: int
    native: int

    def __str__(self) -> str:
        return (
            f"{self.runs:>7} runs  rss {self.rss / 1024:7.1f}  pss {self.pss / 1024:7.1f} MiB  fds {self.fds:>3}"
            f"  tasks {self.tasks:>3}  threads {self.threads:>3}  objects {self.objects:>8,}"
            f"  blocks {self.blocks:>9,}  native {self.native / 1024:5.1f} MiB"
        )


def sample(runs: int) -> Sample:
    gc.collect()
    fields = {}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        fields[name] = int(rest.split()[0])
    return Sample(
        runs,
        fields["Rss"],
        fields["Pss"],
        len(os.listdir("/proc/self/fd")),  # noqa: PTH208
        sum(not _is_a_pass(task) for task in asyncio.all_tasks()),
        threading.active_count(),
        len(gc.get_objects()),
        sys.getallocatedblocks(),
        _native(),
    )


def _is_a_pass(task: asyncio.Task[Any]) -> bool:
    """Whether a timer has just started it: such tasks end at once, and are there at some looks."""
    return getattr(task.get_coro(), "__qualname__", "") == "run_coroutine_job"


#: glibc's `struct mallinfo2`
_MALLINFO = (
    *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
    *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
)


class _Mallinfo(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_size_t) for name in _MALLINFO)


def _native() -> int:
    """KiB that malloc has given out; 0 where the C library does not tell."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallinfo2"):
        return 0
    library.mallinfo2.restype = _Mallinfo
    told = library.mallinfo2()
    return int(told.uordblks + told.hblkhd) >> 10


def kinds() -> Counter[str]:
    """How many objects of each type there are."""
    urllib.parse.clear_cache()
    gc.collect()
    return Counter(f"{type(thing).__module__}.{type(thing).__qualname__}" for thing in gc.get_objects())


def containers() -> dict[int, int]:
    """The lengths of all lists, dicts, sets and queues by their ids; but of the loop's heap of timers."""
    urllib.parse.clear_cache()
    gc.collect()
    found: dict[int, int] = {}
    for thing in gc.get_objects():
        # A dict or set of plain values is not tracked itself: it is seen by who holds it.
        for one in (thing, *(one for one in gc.get_referents(thing) if not gc.is_tracked(one))):
            if type(one) in (dict, list, set, deque) and not _is_heap(one):
                found[id(one)] = len(one)
    return found


def _is_heap(thing: Any) -> bool:
    return type(thing) is list and bool(thing) and isinstance(thing[0], asyncio.TimerHandle)


def filled(lengths: Sequence[dict[int, int]], runs: int, *, share: float = 0.9) -> list[str]:
    """Containers that became longer by `share` of the runs in every interval, with a look at what is in them."""
    by_id = {id(one): one for thing in gc.get_objects() for one in (thing, *gc.get_referents(thing))}
    return [
        f"{type(by_id[key]).__name__} of {length}: {str(by_id[key])[:200]}"
        for key, length in lengths[-1].items()
        if key in by_id
        and all(
            after.get(key, 0) - before.get(key, length) >= share * runs for before, after in pairwise(lengths)
        )
    ]


def grown(before: Counter[str], after: Counter[str], runs: int, *, share: float = 0.2) -> dict[str, int]:
    """The types of which there are more by `share` of the runs between, or more."""
    return {kind: count for kind, count in (after - before).items() if count >= share * runs}


def slope(samples: Sequence[Sample], name: str) -> float:
    """How much of it comes with a run: least squares over the second half of the samples."""
    half = samples[len(samples) // 2 :]
    xs, ys = [one.runs for one in half], [getattr(one, name) for one in half]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((one - x) ** 2 for one in xs)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / spread if spread else 0.0


def verdict(samples: Sequence[Sample]) -> list[str]:
    """What grows."""
    slopes = {name: slope(samples, name) for name in MOST}
    return [
        f"{name} grows by {slopes[name]:.4f} a run, {most:g} is the most"
        for name, most in MOST.items()
        if slopes[name] > most
    ]


class Growth:
    """A service in this process, and runs for it."""

    def __init__(self, client: httpx.AsyncClient, engine: object) -> None:
        self._client, self.engine = client, engine
        self.done = 0

    async def runs(self, count: int, *, mix: Sequence[str] = MIX, at_once: int = 8) -> None:
        """So many runs more, to their end."""
        numbers = iter(range(self.done, self.done + count))

        async def client() -> None:
            for number in numbers:
                uuid = mix[number % len(mix)]
                answer = await self._client.post(
                    f"/api/v1/pipelines/{uuid}/pipeline_runs",
                    # Few keys: each is kept for a week, and what is kept fills SQLite's page caches.
                    headers={"Prefer": "wait=60"}
                    | ({"Idempotency-Key": f"k{number}"} if number % 50 == 0 else {}),
                )
                wanted = "failed" if uuid == "fails" else "completed"
                assert answer.json().get("status") == wanted, answer.text
                await self._client.get(f"/api/v1/pipeline_runs/{answer.json()['id']}")

        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(client())
        self.done += count

    async def prune(self) -> None:
        await self.engine.passes.forget()  # type: ignore[attr-defined]


@asynccontextmanager
async def growing(folder: Path, *, keep: int) -> AsyncIterator[Growth]:
    """A service on a project of its own."""
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(dedent(text).lstrip())
    given = {"workers": 2, "warm_workers": 2, "drain_s": 0, "inline": True, "log_level": "warning"}
    app = create_app(load(folder, keep_runs_per_pipeline=keep, **given))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost:8000", timeout=90) as client,
    ):
        yield Growth(client, app.state.engine)


async def main(runs: int) -> int:
    """1 when anything grows."""
    samples: list[Sample] = []
    step = max(50, runs // 20)
    with tempfile.TemporaryDirectory(prefix="rw-growth-") as folder:
        keep = int(os.environ.get("GROWTH_KEEP") or 200)
        async with growing(Path(folder), keep=keep) as service:
            before: Counter[str] = Counter()
            half = 0
            while service.done < runs:
                await service.runs(step)
                await service.prune()
                samples.append(sample(service.done))
                print(samples[-1], flush=True)
                if not before and service.done >= runs / 2:
                    before, half = kinds(), service.done
            more = grown(before, kinds(), service.done - half, share=0.05)
            size = (Path(folder) / ".runwright" / "runwright.db").stat().st_size
            print(f"database {size / 1048576:.1f} MiB; more of: {more or 'nothing'}")
    for name in MOST:
        print(f"  {name}: {slope(samples, name):+.4f} a run")
    if runs < SETTLED:
        print(f"too short to judge: caches fill for about {SETTLED // 2:,} runs; ask for {SETTLED:,} or more")
        return 0
    found = verdict(samples)
    print("\n".join(found) or "nothing grows")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5000)))
