"""What is due of a run, read off its rows: the units of the journal that fit, for `store_machine.py`."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from app import clock
from app.models.pipeline import Block, BlockType, Dynamic, Pipeline
from app.models.states import BLOCK_TERMINAL, BlockStatus, Outcome, RunStatus
from app.store.units import Child, Chunk, Close, Finish, Plan, Settle, Start, Wait
from tests.store.conftest import Bench, chain

B, TRIES, ITEMS = BlockStatus, 2, 2
FAN = Pipeline(
    "fan",
    (
        Block("a", BlockType.CUSTOM, "custom/a.py", dynamic=Dynamic(parent=True)),
        Block("b", BlockType.CUSTOM, "custom/b.py", upstream=("a",)),
        Block("c", BlockType.CUSTOM, "custom/c.py", upstream=("b",)),
    ),
)
PIPELINES = {"one": chain(1, "one"), "etl": chain(3, "etl"), "fan": FAN}
UPSTREAM = {"a": None, "b": "a", "c": "b"}


@dataclass
class Run:
    """A run with its rows."""

    row: Any
    blocks: dict[int, Any]
    attempts: dict[int, list[Any]]

    @property
    def asked_to_stop(self) -> bool:
        return self.row.cancel_requested_at is not None

    def open_of(self, block_id: int) -> Any:
        return next((a for a in self.attempts.get(block_id, []) if a.ended_at is None), None)

    def named(self, uuid: str | None) -> Any:
        return next((b for b in self.blocks.values() if b.block_uuid == uuid and b.parent_id is None), None)

    def children(self, block: Any) -> list[Any]:
        return [b for b in self.blocks.values() if b.parent_id == block.id]

    def may_start(self, block: Any) -> bool:
        """Whether its upstream is there, and it is no block that runs once an item."""
        if block.status not in (B.INITIAL, B.QUEUED) or self.open_of(block.id) or block.children is not None:
            return False
        if block.parent_id is not None:
            return True
        if self.row.pipeline_uuid == "fan" and block.block_uuid == "b":
            return False
        return block.block_uuid == "a" or self.named(UPSTREAM[block.block_uuid]).status == B.COMPLETED


class Steps:
    """Makes units for runs; numbers of hooks and log chunks are never given twice."""

    runner: asyncio.Runner
    bench: Bench
    hooks: int

    def due(self, run: Run) -> list[dict[str, Any]]:
        """All units that fit the rows."""
        found: list[dict[str, Any]] = []
        for block in run.blocks.values():
            found += self.due_of(run, block)
        states = [b.status for b in run.blocks.values()]
        if all(state in BLOCK_TERMINAL for state in states) and not any(
            run.open_of(block_id) for block_id in run.blocks
        ):
            fine = all(state == B.COMPLETED for state in states)
            status = RunStatus.CANCELLED if run.asked_to_stop else RunStatus.FAILED
            found.append({"close": Close(status=RunStatus.COMPLETED if fine else status, reason="x")})
        return found

    def due_of(self, run: Run, block: Any) -> list[dict[str, Any]]:
        opened, number = run.open_of(block.id), block.attempt + 1
        of = {"block_run_id": block.id}
        if opened is not None and opened.kind == "hook":
            end = Finish(
                **of,
                attempt=opened.attempt,
                outcome=Outcome.COMPLETED,
                status=BlockStatus(block.status),
                hook=True,
            )
            return [{"finishes": (end,)}]
        if opened is not None:
            return self.ends(run, block)
        found: list[dict[str, Any]] = []
        if run.may_start(block):
            found.append({"starts": (Start(**of, attempt=number),)})
        mapped = run.row.pipeline_uuid == "fan" and block.block_uuid == "b"
        hooks = sum(a.kind == "hook" for each in run.attempts.values() for a in each)
        if not mapped and hooks < 2:
            self.hooks += 1
            found.append({"starts": (Start(**of, attempt=number, hook=f"callback:h{self.hooks}"),)})
        upstream = None if block.parent_id else run.named(UPSTREAM[block.block_uuid])
        if (
            block.status == B.INITIAL
            and upstream is not None
            and upstream.status in BLOCK_TERMINAL - {B.COMPLETED}
        ):
            found.append({"settles": (Settle(**of, status=B.UPSTREAM_FAILED),)})
        if block.status in (B.INITIAL, B.QUEUED) and run.asked_to_stop and block.children is None:
            found.append({"settles": (Settle(**of, status=B.CANCELLED, reason="stopped"),)})
        return found + self.of_family(run, block, upstream)

    def ends(self, run: Run, block: Any) -> list[dict[str, Any]]:
        """The ends that an open attempt may have, one of them with the start of the block after it."""
        of = {"block_run_id": block.id, "attempt": block.attempt}
        counted = [
            a for a in run.attempts[block.id] if a.kind == "block" and a.outcome in ("completed", "failed")
        ]
        last = len(counted) + 1 >= TRIES
        done = Finish(**of, outcome=Outcome.COMPLETED, status=B.COMPLETED, outputs="[]")
        bad = Finish(**of, outcome=Outcome.FAILED, status=B.FAILED if last else B.QUEUED, error={"type": "E"})
        found: list[dict[str, Any]] = [{"finishes": (done,)}, {"finishes": (bad,)}]
        if block.wake_at is None:
            wake = Wait(block_run_id=block.id, wake_at=clock.now() + timedelta(hours=1))
            chunk = Chunk(pos=self.take_number(), block_run_id=block.id, attempt=block.attempt, lines="[]")
            found.append({"waits": (wake,), "chunks": (chunk,)})
        after = next((b for b in run.blocks.values() if UPSTREAM.get(b.block_uuid) == block.block_uuid), None)
        if (
            after is not None
            and block.parent_id is None
            and run.row.pipeline_uuid == "etl"
            and after.status == B.INITIAL
            and run.open_of(after.id) is None
        ):
            following = Start(block_run_id=after.id, attempt=after.attempt + 1)
            found.append({"finishes": (done,), "starts": (following,)})
        return found

    def take_number(self) -> int:
        self.hooks += 1
        return self.hooks

    def of_family(self, run: Run, block: Any, upstream: Any) -> list[dict[str, Any]]:
        """What is due of a block that runs once an item."""
        if run.row.pipeline_uuid != "fan" or block.block_uuid != "b" or block.parent_id is not None:
            return []
        if block.status == B.INITIAL and upstream.status == B.COMPLETED and not run.asked_to_stop:
            ids = self.runner.run(self.bench.block_ids.take(ITEMS))
            born = tuple(
                Child(
                    id=i,
                    parent_id=block.id,
                    block_uuid=f"b:{n}",
                    item_index=n,
                    position=10 + n,
                    max_attempts=TRIES,
                )
                for n, i in enumerate(ids)
            )
            return [{"plans": (Plan(block_run_id=block.id, children=ITEMS),), "children": born}]
        children = run.children(block)
        if block.status == B.QUEUED and all(child.status in BLOCK_TERMINAL for child in children):
            fine = all(child.status == B.COMPLETED for child in children)
            end = Settle(block_run_id=block.id, status=B.COMPLETED if fine else B.FAILED, outputs="[]")
            return [{"settles": (end,)}]
        if block.status == B.INITIAL and run.asked_to_stop:
            return [{"settles": (Settle(block_run_id=block.id, status=B.CANCELLED),)}]
        return []
