"""A project in a temporary folder, and calls of its blocks."""

import os
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from app.executors.base import BlockCall, BlockResult, Executor, LogLine, OutputRef
from app.models.pipeline import Block, BlockType


class Bench:
    """Writes block files and runs them on an executor; `lines` are those of the last attempt."""

    def __init__(self, folder: Path) -> None:
        self.project = folder / "demo"
        self.artifacts = folder / "artifacts"
        self.project.mkdir()
        self.artifacts.mkdir()
        self.lines: list[LogLine] = []
        self._runs = 0

    def write(self, file: str, text: str) -> Path:
        path = self.project / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    def call(
        self,
        text: str | None = None,
        *,
        type: str = "custom",
        uuid: str = "block",
        inputs: Sequence[tuple[str, Sequence[OutputRef]]] = (),
        kwargs: dict[str, Any] | None = None,
        **more: Any,
    ) -> BlockCall:
        file = f"{type}s/{uuid}.py"
        if text is not None:
            self.write(file, text)
        self._runs += 1
        options = {name: more.pop(name) for name in ("configuration",) if name in more}
        block = Block(uuid, BlockType(type), file, upstream=tuple(name for name, _ in inputs), **options)
        values: dict[str, Any] = {
            "run_id": self._runs,
            "block_run_id": self._runs,
            "attempt": 1,
            "epoch": 1,
            "pipeline_uuid": "pipe",
            "block": block,
            "project": self.project,
            "artifact_dir": f"{self._runs}/{uuid}/1.1",
            "artifacts": self.artifacts,
            "inputs": inputs,
            "kwargs": kwargs or {},
        }
        return BlockCall(**{**values, **more})

    async def run(self, executor: Executor, text: str | None = None, **more: Any) -> BlockResult:
        """One attempt in a slot of its own."""
        return await self.run_call(executor, self.call(text, **more))

    async def run_call(self, executor: Executor, call: BlockCall) -> BlockResult:
        self.lines = []
        slot = await executor.acquire(call.python)
        try:
            return await slot.run(call, self.lines.append)
        finally:
            slot.release()

    def texts(self, *streams: str) -> list[str]:
        return [line.text for line in self.lines if not streams or line.stream in streams]


def values(result: BlockResult) -> list[Any]:
    """The values of outputs that are kept as JSON."""
    assert result.error is None, result.error
    return [ref["value"] for ref in result.outputs]


def marked(node: str) -> set[int]:
    """Every live process that carries the mark of this node."""
    return {pid for pid in _pids() if f"_RUNWRIGHT_NODE={node}".encode() in _environment(pid)}


def alive(pids: Iterable[int]) -> list[int]:
    """Those of the processes that exist and are no zombies."""
    return [pid for pid in pids if _state(pid) not in ("", "Z", "X")]


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""
