"""A run as a live tree of its blocks under the log that scrolls by: for people at a terminal."""

from collections.abc import Mapping, Sequence
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.text import Text
from rich.tree import Tree

from app import clock
from app.cli.plain import span
from app.events import BlockEnded, BlockStarted
from app.models.rows import BlockRow, LogRow, RunRow
from app.models.states import BLOCK_TERMINAL, BlockStatus, RunStatus

_LOOKS: Final = {
    "initial": ("·", "dim"),
    "queued": ("↻", "yellow"),
    "running": ("▶", "cyan"),
    "completed": ("✓", "green"),
    "skipped": ("↷", "dim"),
    "failed": ("✗", "bold red"),
    "cancelled": ("■", "yellow"),
    "upstream_failed": ("✗", "dim red"),
    "condition_failed": ("↷", "dim"),
}


class _Block:
    """What the tree shows of one block; its children are counted, not shown."""

    def __init__(self, uuid: str) -> None:
        self.uuid = uuid
        self.state = BlockStatus.INITIAL
        self.attempt = 0
        self.began: float | None = None
        self.took: float | None = None
        self.note = ""
        self.begun = self.ended = 0

    def label(self) -> Text:
        sign, style = _LOOKS[self.state]
        text = Text.assemble((f"{sign} {self.uuid}", style))
        seconds = self.took
        if self.state is BlockStatus.RUNNING and self.began is not None:
            seconds = clock.monotonic() - self.began
        if seconds is not None:
            text.append(f"  {span(seconds)}", "dim")
        if self.begun:
            text.append(f"  {self.ended} of {self.begun} begun", "dim")
        if self.attempt > 1:
            text.append(f"  attempt {self.attempt}", "yellow")
        if self.note:
            text.append(f"  {self.note}", style)
        return text


class TreeView:
    """The live view. It prints the log above the tree, so that all of it stays in the scroll-back."""

    tick_s: Final = 0.1

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._live = Live(console=self._console, auto_refresh=False)
        self._blocks: dict[str, _Block] = {}
        self._graph: Mapping[str, Sequence[str]] = {}
        self._title = ""
        self._status: str = RunStatus.RUNNING
        self._began = clock.monotonic()

    def begin(self, run: RunRow, blocks: Sequence[BlockRow], graph: Mapping[str, Sequence[str]]) -> None:
        """Draw the tree for the first time."""
        self._title = f"{run.pipeline_uuid}  run {run.id}"
        self._graph = graph
        self._take(blocks)
        self._live.start()
        self.tick()

    def log(self, line: LogRow) -> None:
        """A line above the tree."""
        style = {"error": "red", "warning": "yellow", "debug": "dim"}.get(line.level, "")
        text = Text(f"{line.at.astimezone():%H:%M:%S} ", "dim")
        if line.block_uuid:
            text.append(f"{line.block_uuid} ", "blue")
        self._console.print(text.append(line.text, style))

    def started(self, event: BlockStarted) -> None:
        """A block runs, or one of its children."""
        if (family := self._family(event.block_uuid)) is not None:
            family.begun += event.attempt == 1
            family.state, family.began = BlockStatus.RUNNING, family.began or clock.monotonic()
            return
        block = self._block(event.block_uuid)
        block.state, block.attempt, block.note = BlockStatus.RUNNING, event.attempt, ""
        block.began, block.took = clock.monotonic(), None

    def ended(self, event: BlockEnded) -> None:
        """A block ended, or waits for its next attempt; of children only that they ended."""
        if (family := self._family(event.block_uuid)) is not None:
            family.ended += event.status in BLOCK_TERMINAL
            return
        block = self._block(event.block_uuid)
        block.state, block.took = event.status, event.duration_s
        if event.error:
            block.note = f"{event.error.get('type')}: {event.error.get('message')}".splitlines()[0]
        self.tick()

    def tick(self) -> None:
        """Draw anew: running blocks count their seconds."""
        self._live.update(self._tree(), refresh=True)

    def end(self, run: RunRow, blocks: Sequence[BlockRow]) -> None:
        """Leave the last state of the tree on the screen."""
        self._status = run.status
        self._take(blocks)
        self.tick()
        self._live.stop()

    def _take(self, blocks: Sequence[BlockRow]) -> None:
        for row in blocks:
            if row.parent_id is not None:
                continue
            block = self._block(row.block_uuid)
            block.state = row.status
            if row.status is BlockStatus.UPSTREAM_FAILED:
                block.note = "upstream failed"

    def _family(self, uuid: str) -> _Block | None:
        """The block that a child belongs to; None for a block itself."""
        if uuid in self._graph:
            return None
        return self._blocks.get(uuid.partition(":")[0])

    def _block(self, uuid: str) -> _Block:
        return self._blocks.setdefault(uuid, _Block(uuid))

    def _tree(self) -> Tree:
        sign, style = _LOOKS[self._status]
        title = Text.assemble((f"{sign} {self._title}", style))
        tree = Tree(title.append(f"  {span(clock.monotonic() - self._began)}", "dim"))
        branches: dict[str, Tree] = {}
        for block in self._blocks.values():  # upstreams come first
            first, *others = self._graph.get(block.uuid) or ("",)
            label = block.label()
            if others:
                label.append(f"  also after {', '.join(others)}", "dim")
            branches[block.uuid] = branches.get(first, tree).add(label)
        return tree
