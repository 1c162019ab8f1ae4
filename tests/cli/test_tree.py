"""The live tree, drawn without a terminal."""

from datetime import UTC, datetime
from io import StringIO

from rich.console import Console

from app.cli.tree import TreeView
from app.events import BlockEnded, BlockStarted
from app.models.rows import BlockRow, LogRow, RunRow
from app.models.states import BlockStatus, Cause, Outcome, RunStatus

NOW = datetime(2026, 1, 31, tzinfo=UTC)


def run(status: RunStatus) -> RunRow:
    return RunRow(
        id=7,
        pipeline_uuid="etl",
        pipeline_hash="",
        cause=Cause.CLI,
        execution_date=NOW,
        status=status,
        created_at=NOW,
    )


def block(uuid: str, status: BlockStatus) -> BlockRow:
    return BlockRow(id=1, pipeline_run_id=7, block_uuid=uuid, status=status)


def test_the_tree_hangs_each_block_on_its_first_upstream() -> None:
    screen = StringIO()
    view = TreeView(Console(file=screen, width=100))
    graph = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}
    view.begin(run(RunStatus.RUNNING), [block(name, BlockStatus.INITIAL) for name in graph], graph)
    view.started(BlockStarted(run_id=7, block_uuid="a", attempt=2))
    view.log(LogRow(id="1.0", at=NOW, block_uuid="a", attempt=2, stream="stdout", level="info", text="[x] y"))
    failed = BlockEnded(
        run_id=7,
        block_uuid="a",
        status=BlockStatus.FAILED,
        attempt=2,
        outcome=Outcome.FAILED,
        error={"type": "ValueError", "message": "no\nluck"},
        duration_s=1.25,
    )
    view.ended(failed)
    blocks = [block("a", BlockStatus.FAILED), *(block(name, BlockStatus.UPSTREAM_FAILED) for name in "bcd")]
    view.end(run(RunStatus.FAILED), blocks)
    lines = screen.getvalue().splitlines()
    assert any(line.endswith("a [x] y") for line in lines)  # no markup in what blocks write
    drawn = lines[-5:]
    assert drawn[0].startswith("✗ etl  run 7")
    assert drawn[1] == "└── ✗ a  1.2 s  attempt 2  ValueError: no"
    assert drawn[2:] == [
        "    ├── ✗ b  upstream failed",
        "    │   └── ✗ d  upstream failed  also after c",
        "    └── ✗ c  upstream failed",
    ]
