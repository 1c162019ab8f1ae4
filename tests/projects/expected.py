"""What is expected of each pipeline of the project, read from the `expect.yaml` beside it, and what was found.

`status`; `statuses` of every block run, or `some_statuses`; `outputs` as a block below gets them (a data frame is
`{frame: …}`); `errors`, `reasons` and `logs` hold texts that must be in them; `tries` and `hooks` count attempts.
`ways` says how it is run when not in every way, `inline` that it can also run on the service's loop, `variables` and
`trigger` what it is given, `schedule` what differs when a trigger starts it, `testing` what `run_pipeline` is given.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.executors.child import outputs
from app.models.rows import BlockRow, LogRow, RunRow
from app.models.states import BlockStatus
from app.testing import RunReport

PROJECT = Path(__file__).parent / "mage_project"
WAYS = ("cli", "api", "schedule", "test")
KEYS = {
    *("covers", "ways", "inline", "variables", "trigger", "status", "statuses", "some_statuses", "outputs"),
    *("errors", "reasons", "logs", "tries", "hooks", "schedule", "testing"),
}


@dataclass(frozen=True)
class Block:
    """One block run as it was found, whoever ran it."""

    status: str
    output: Any
    reason: str
    error: str
    log: str
    tries: int
    hooks: list[str]


@dataclass(frozen=True)
class Found:
    status: str
    blocks: Mapping[str, Block]


@dataclass(frozen=True)
class Expected:
    """What one pipeline must come to."""

    uuid: str
    keys: Mapping[str, Any] = field(repr=False)

    def goes(self, way: str) -> bool:
        return way in self.keys.get("ways", WAYS)

    def check(self, found: Found, way: str) -> None:
        """Compare; a difference is told for the whole run at once."""
        wanted = {**self.keys, **(self.keys.get("schedule", {}) if way == "schedule" else {})}
        statuses = {uuid: block.status for uuid, block in found.blocks.items()}
        seen = {"status": found.status, "statuses": statuses}
        told = {uuid: (b.error or b.reason) for uuid, b in found.blocks.items() if b.error or b.reason}
        assert seen["status"] == wanted["status"], (seen, told)
        assert statuses == wanted.get("statuses", statuses), told
        assert statuses == {**statuses, **wanted.get("some_statuses", {})}, told
        blocks = found.blocks
        assert {uuid: blocks[uuid].output for uuid in wanted.get("outputs", {})} == wanted.get("outputs", {})
        assert {uuid: blocks[uuid].tries for uuid in wanted.get("tries", {})} == wanted.get("tries", {})
        assert {uuid: blocks[uuid].hooks for uuid in wanted.get("hooks", {})} == wanted.get("hooks", {})
        for key, text_of in (("errors", "error"), ("reasons", "reason"), ("logs", "log")):
            for uuid, texts in wanted.get(key, {}).items():
                for text in [texts] if isinstance(texts, str) else texts:
                    assert text in getattr(blocks[uuid], text_of), (key, uuid)


def all_expected() -> list[Expected]:
    found = [
        Expected(file.parent.name, yaml.safe_load(file.read_text(encoding="utf-8")))
        for file in sorted(PROJECT.glob("pipelines/*/expect.yaml"))
    ]
    assert all(set(one.keys) <= KEYS and one.keys["covers"] for one in found)
    return found


def going(way: str) -> pytest.MarkDecorator:
    """Have a test for each pipeline that is run this way."""
    chosen = [one for one in all_expected() if one.goes(way)]
    return pytest.mark.parametrize("one", chosen, ids=[one.uuid for one in chosen])


def of_report(report: RunReport) -> Found:
    """What `run_pipeline` found."""
    return Found(
        report.status,
        {
            uuid: Block(
                status=block.status,
                output=plain(block.output),
                reason=block.reason or "",
                error=str(block.error or ""),
                log=block.log,
                tries=block.tries,
                hooks=block.hooks,
            )
            for uuid, block in report.blocks.items()
        },
    )


def of_rows(run: RunRow, blocks: Sequence[BlockRow], lines: Sequence[LogRow], artifacts: Path) -> Found:
    """What the database and the artifacts say."""
    return Found(str(run.status), {row.block_uuid: _of_row(row, lines, artifacts) for row in blocks})


def _of_row(row: BlockRow, lines: Sequence[LogRow], artifacts: Path) -> Block:
    done = row.status is BlockStatus.COMPLETED
    refs = [dict(ref) for ref in row.outputs]
    error = row.error if row.status is BlockStatus.FAILED and row.error else {}
    return Block(
        status=str(row.status),
        output=plain(outputs.open_input(refs, str(artifacts), row.block_uuid)) if done else None,
        reason=row.status_reason or "",
        error=f"{error.get('type')}: {error.get('message')}" if error else "",
        log="\n".join(line.text for line in lines if line.block_uuid == row.block_uuid),
        tries=sum(1 for attempt in row.attempts if attempt.hook is None),
        hooks=[attempt.hook for attempt in row.attempts if attempt.hook is not None],
    )


def plain(value: Any) -> Any:
    return {"frame": value.to_dict("list")} if hasattr(value, "to_dict") else value
