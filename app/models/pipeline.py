"""A pipeline as a value: blocks, graph, policies. Made by `app.pipelines` from a folder, frozen with each run.

Pure: no file is read here. `Pipeline.to_json` is what `pipeline_version` keeps; its hash names the version.
"""

import hashlib
import json
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import Any


class BlockType(StrEnum):
    """The block types that run here. Notes (chart, markdown …) never become a Block."""

    DATA_LOADER = "data_loader"
    TRANSFORMER = "transformer"
    DATA_EXPORTER = "data_exporter"
    SENSOR = "sensor"
    CUSTOM = "custom"


class Isolation(StrEnum):
    """Where a block's code runs: in a killable worker process, or on the service's own loop (trusted only)."""

    WORKER = "worker"
    INLINE = "inline"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and when a failed attempt is tried again (Mage: `retry_config`). Times in seconds."""

    retries: int = 0
    delay_s: float = 5.0
    max_delay_s: float = 60.0
    exponential_backoff: bool = True

    def delay_before(self, attempt: int) -> float:
        """Seconds to wait before attempt number `attempt` (2 is the first retry).

        `max_delay_s` caps each delay; in Mage it caps their sum, which silently drops retries.

        >>> [RetryPolicy(retries=9).delay_before(n) for n in (2, 3, 4, 5, 6)]
        [5.0, 10.0, 20.0, 40.0, 60.0]
        """
        factor = 2.0 ** min(attempt - 2, 60) if self.exponential_backoff else 1.0
        return min(self.delay_s * factor, self.max_delay_s)


@dataclass(frozen=True, slots=True)
class Block:
    """One step of a pipeline. `file` is relative to the project folder, with forward slashes."""

    uuid: str
    type: BlockType
    file: str
    name: str = ""
    language: str = "python"
    upstream: tuple[str, ...] = ()
    configuration: Mapping[str, Any] = field(default_factory=dict)
    retry: RetryPolicy = RetryPolicy()
    timeout_s: float | None = None
    isolation: Isolation = Isolation.WORKER
    executor_type: str = "local_python"


@dataclass(frozen=True, slots=True)
class Limits:
    """`concurrency_config` of a pipeline; None is no limit, 0 is none at all."""

    block_run_limit: int | None = None
    pipeline_run_limit: int | None = None
    pipeline_run_limit_all_triggers: int | None = None
    on_pipeline_run_limit_reached: str = "wait"


@dataclass(frozen=True)
class Pipeline:
    """A valid pipeline. `blocks` are in topological order, upstreams first."""

    uuid: str
    blocks: tuple[Block, ...]
    name: str = ""
    type: str = "python"
    description: str = ""
    tags: tuple[str, ...] = ()
    variables: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = Limits()
    timezone: str = "UTC"
    warnings: tuple[str, ...] = ()

    @cached_property
    def by_uuid(self) -> Mapping[str, Block]:
        """The blocks by their uuid."""
        return {block.uuid: block for block in self.blocks}

    @cached_property
    def downstream(self) -> Mapping[str, tuple[str, ...]]:
        """For each block the blocks that name it as upstream, in topological order."""
        found: dict[str, list[str]] = {block.uuid: [] for block in self.blocks}
        for block in self.blocks:
            for upstream in block.upstream:
                found[upstream].append(block.uuid)
        return {uuid: tuple(names) for uuid, names in found.items()}

    def only(self, uuids: Iterable[str]) -> "Pipeline":
        """The same pipeline with nothing but these blocks; edges to others are cut."""
        keep = set(uuids)
        blocks = tuple(
            Block(**{**_fields(b), "upstream": tuple(u for u in b.upstream if u in keep)})
            for b in self.blocks
            if b.uuid in keep
        )
        return Pipeline(**{**_fields(self), "blocks": blocks})

    @cached_property
    def definition(self) -> str:
        """Canonical JSON of everything that decides how a run goes: what `pipeline_version` stores."""
        value = {**_fields(self), "blocks": [asdict(block) for block in self.blocks]}
        value["limits"] = asdict(self.limits)
        value.pop("warnings")
        return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of :attr:`definition`, hexadecimal."""
        return hashlib.sha256(self.definition.encode()).hexdigest()


@lru_cache(maxsize=256)
def from_definition(definition: str) -> Pipeline:
    """The pipeline that a frozen definition describes; the same object for the same text."""
    value = json.loads(definition)
    value["blocks"] = tuple(
        Block(
            **{
                **block,
                "type": BlockType(block["type"]),
                "isolation": Isolation(block["isolation"]),
                "upstream": tuple(block["upstream"]),
                "retry": RetryPolicy(**block["retry"]),
            }
        )
        for block in value["blocks"]
    )
    value["limits"] = Limits(**value["limits"])
    value["tags"] = tuple(value["tags"])
    return Pipeline(**value)


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


class GraphError(ValueError):
    """The blocks do not form a graph without cycles; the message names the blocks."""


def in_order(edges: Mapping[str, Sequence[str]]) -> list[str]:
    """Block uuids, upstreams first, otherwise in the given order. `edges` maps a block to its upstreams.

    Raises GraphError for an unknown upstream or a cycle, naming the path.

    >>> in_order({"b": ["a"], "a": [], "c": ["b"]})
    ['a', 'b', 'c']
    >>> in_order({"a": ["b"], "b": ["a"]})
    Traceback (most recent call last):
    ...
    app.models.pipeline.GraphError: blocks form a cycle: a -> b -> a
    """
    for uuid, upstreams in edges.items():
        for upstream in upstreams:
            if upstream not in edges:
                raise GraphError(f"block '{uuid}' names an unknown upstream block '{upstream}'")
    open_count = {uuid: len(set(upstreams)) for uuid, upstreams in edges.items()}
    downstream: dict[str, list[str]] = {uuid: [] for uuid in edges}
    for uuid, upstreams in edges.items():
        for upstream in dict.fromkeys(upstreams):
            downstream[upstream].append(uuid)
    ready = deque(uuid for uuid, count in open_count.items() if count == 0)
    ordered: list[str] = []
    while ready:
        uuid = ready.popleft()
        ordered.append(uuid)
        for down in downstream[uuid]:
            open_count[down] -= 1
            if open_count[down] == 0:
                ready.append(down)
    if len(ordered) < len(edges):
        raise GraphError(f"blocks form a cycle: {' -> '.join(_cycle(edges, set(ordered)))}")
    return ordered


def _cycle(edges: Mapping[str, Sequence[str]], done: set[str]) -> list[str]:
    """One cycle among the blocks not in `done`, its first block repeated at the end, in flow direction."""
    start = next(uuid for uuid in edges if uuid not in done)
    path: list[str] = []
    node = start
    while node not in path:
        path.append(node)
        node = next(u for u in edges[node] if u not in done)
    loop = path[path.index(node) :]
    return [loop[0], *reversed(loop[1:]), loop[0]]
