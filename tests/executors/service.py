"""A small service for the tests to kill and stop: runs one block and says on stdout what becomes of it."""

import asyncio
import json
import sys
from pathlib import Path

from app.executors.base import LogLine
from app.executors.pool import WorkerPool
from tests.executors.bench import Bench

SLEEPER = """
    import os, subprocess, sys

    @custom
    def f():
        subprocess.Popen(["setsid", "sleep", "60"])
        print("up", flush=True)
        subprocess.run(["sleep", "60"])
"""


def say(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


def on_line(line: LogLine) -> None:
    if line.text == "up":
        say(up=True)


async def main(folder: Path, node: str) -> None:
    bench = Bench(folder)
    pool = WorkerPool(node_id=node, project=bench.project, workers=2, warm=1)
    await pool.start()
    say(warden=pool.warden_pid)
    slot = await pool.acquire(None)
    result = await slot.run(bench.call(SLEEPER), on_line)
    say(outcome=result.outcome, evidence=result.evidence)
    again = await slot.run(bench.call("@custom\ndef f():\n    return 1\n"), on_line)
    say(outcome=again.outcome)
    slot.release()
    await pool.stop()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
