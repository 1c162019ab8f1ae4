"""In short what `python -m tests.soak.growth` shows at length: runs leave nothing behind in the process."""

import asyncio
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

from app import clock
from app.scheduler.parking import SLACK, Parking
from tests.soak.growth import containers, filled, growing, grown, kinds, sample

ROUNDS, RUNS = 4, 15
#: A worker that has run 90 attempts has a successor beside it: so many descriptors are its link and its output.
SUCCESSOR_FDS = 4
#: A timer that was cancelled lies in the loop's heap until it is its turn, or until half of the heap is such.
TIMERS = {"asyncio.events.TimerHandle", "_contextvars.Context", "builtins.tuple"}
#: Each connection keeps up to 256 statements, and they are not full yet.
STATEMENTS = {"sqlite3.Statement", "weakref.ReferenceType"}


async def test_a_run_leaves_no_object_descriptor_task_or_thread_behind(tmp_path: Path) -> None:
    lengths, counts, samples = [], [], []
    async with growing(tmp_path, keep=10) as service:
        for _ in range(ROUNDS):
            await service.runs(RUNS)
            await service.prune()
            lengths.append(containers())
            counts.append(kinds())
            samples.append(sample(service.done))
        longer = filled(lengths, RUNS)
    assert longer == []
    rounds = [grown(before, after, RUNS, share=0.9).keys() for before, after in pairwise(counts)]
    assert set.intersection(*map(set, rounds)) <= TIMERS | STATEMENTS
    assert samples[-1].tasks == samples[0].tasks
    assert samples[-1].threads == samples[0].threads
    assert samples[-1].fds <= samples[0].fds + SUCCESSOR_FDS + 2


async def test_runs_that_are_parked_and_taken_again_and_again_leave_nothing() -> None:
    parking = Parking(lambda run_id: None)
    far = clock.now() + timedelta(days=30)
    for n in range(5000):
        parking.park(n, far + timedelta(seconds=n))
        assert parking.take(n)
    parking.park(-1, clock.now())
    assert len(parking) == 1 and len(parking._heap) <= SLACK + 3
    woken = asyncio.get_running_loop().create_future()
    parking._wake = woken.set_result
    assert await woken == -1
    parking.close()
