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

#: Multiples of it, modulo 1, lie far apart: chance that a restart repeats.
_GOLDEN = (5**0.5 - 1) / 2


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
    #: how much of a delay is left to chance, between 0 and 1: what failed together need not come back together
    jitter: float = 0.0

    def delay_before(self, attempt: int, seed: int = 0) -> float:
        """Seconds to wait before attempt number `attempt` (2 is the first retry).

        `max_delay_s` caps each delay; in Mage it caps their sum, which silently drops retries. `jitter` shortens
        it by a share that `seed` decides.

        >>> [RetryPolicy(retries=9).delay_before(n) for n in (2, 3, 4, 5, 6)]
        [5.0, 10.0, 20.0, 40.0, 60.0]
        >>> [round(RetryPolicy(jitter=0.5).delay_before(2, seed), 1) for seed in (0, 1, 2)]
        [5.0, 3.5, 4.4]
        """
        factor = 2.0 ** min(attempt - 2, 60) if self.exponential_backoff else 1.0
        share = (seed + attempt - 2) * _GOLDEN % 1
        return min(self.delay_s * factor, self.max_delay_s) * (1 - self.jitter * share)


class TriggerRule(StrEnum):
    """What must have become of the upstream blocks before a block starts."""

    ALL_SUCCESS = "all_success"
    ALL_DONE = "all_done"
    ALL_FAILED = "all_failed"
    ONE_SUCCESS = "one_success"
    ONE_FAILED = "one_failed"
    NONE_FAILED = "none_failed"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class Hook:
    """A conditional or callback of a block. `file` is relative to the project folder."""

    uuid: str
    file: str


@dataclass(frozen=True, slots=True)
class Dynamic:
    """How a block hands out items, and how many of them (Mage: `configuration.dynamic`, `dynamic_blocks`).

    `parent`: what it returns are items, and each block below runs once an item. `reduce_output`: the block below
    runs once, with the list of what all children left.
    """

    parent: bool = False
    #: the blocks below that run once an item; none named is all of them
    only: tuple[str, ...] = ()
    reduce_output: bool = False
    max_children: int = 10_000
    on_max_exceeded: str = "fail"
    max_in_flight: int | None = None


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
    trigger_rule: TriggerRule = TriggerRule.ALL_SUCCESS
    conditions: tuple[Hook, ...] = ()
    callbacks: tuple[Hook, ...] = ()
    dynamic: Dynamic = Dynamic()
    #: the block whose code this one runs, at a place of its own (Mage: `replicated_block`)
    replica_of: str | None = None

    def hands_items(self, to: str) -> bool:
        """Whether it hands items to the block `to`, instead of all it returned."""
        return self.dynamic.parent and (not self.dynamic.only or to in self.dynamic.only)


@dataclass(frozen=True, slots=True)
class Limits:
    """`concurrency_config` of a pipeline; None is no limit, 0 is none at all."""

    block_run_limit: int | None = None
    pipeline_run_limit: int | None = None
    pipeline_run_limit_all_triggers: int | None = None
    on_pipeline_run_limit_reached: str = "wait"


@dataclass(frozen=True, slots=True)
class Keep:
    """For how long a pipeline's past is kept, in days; 0 is for ever, None what the level above says."""

    runs_days: float | None = None
    #: finished runs kept at most, the newest
    runs: int | None = None
    logs_days: float | None = None
    #: files of block outputs
    outputs_days: float | None = None


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
    keep: Keep = Keep()
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

    @cached_property
    def has_hooks(self) -> bool:
        """Whether any block has a condition or a callback."""
        return any(block.callbacks or block.conditions for block in self.blocks)

    def starts_plainly(self, uuid: str) -> bool:
        """Whether a block whose upstreams are done is simply run: no condition is asked, no children are made."""
        return not self.by_uuid[uuid].conditions and not self.dimensions[uuid]

    @cached_property
    def dimensions(self) -> Mapping[str, tuple[str, ...]]:
        """For each block the dynamic blocks over whose items it runs; none for a block that runs once."""
        found: dict[str, tuple[str, ...]] = {}
        for block in self.blocks:  # upstreams first
            parts = [_passed_on(self.by_uuid[up], block.uuid, found[up]) for up in block.upstream]
            found[block.uuid] = tuple(dict.fromkeys(dim for part in parts for dim in part))
        return found

    @cached_property
    def is_dynamic(self) -> bool:
        """Whether any block hands out items."""
        return any(block.dynamic.parent for block in self.blocks)

    @cached_property
    def is_plain(self) -> bool:
        """Whether every block waits for the success of its upstreams."""
        return all(block.trigger_rule is TriggerRule.ALL_SUCCESS for block in self.blocks)

    def only(self, uuids: Iterable[str]) -> "Pipeline":
        """The same pipeline with nothing but these blocks; edges to others are cut."""
        keep = set(uuids)
        blocks = tuple(
            Block(**{**_fields(b), "upstream": tuple(u for u in b.upstream if u in keep)})
            for b in self.blocks
            if b.uuid in keep
        )
        return Pipeline(**{**_fields(self), "blocks": blocks})

    def above(self, uuid: str) -> set[str]:
        """A block and all that it waits for, however far up."""
        found = {uuid}
        for block in reversed(self.blocks):
            if block.uuid in found:
                found.update(block.upstream)
        return found

    @cached_property
    def definition(self) -> str:
        """Canonical JSON of everything that decides how a run goes: what `pipeline_version` stores."""
        value = {**_fields(self), "blocks": [asdict(block) for block in self.blocks]}
        value["limits"] = asdict(self.limits)
        del value["warnings"], value["keep"]  # they decide nothing about a run
        return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of :attr:`definition`, hexadecimal."""
        return hashlib.sha256(self.definition.encode()).hexdigest()


def _passed_on(upstream: Block, to: str, own: tuple[str, ...]) -> tuple[str, ...]:
    if upstream.hands_items(to):
        return (upstream.uuid,)
    return () if upstream.dynamic.reduce_output else own


@lru_cache(maxsize=256)
def from_definition(definition: str) -> Pipeline:
    """The pipeline that a frozen definition describes; the same object for the same text."""
    value = json.loads(definition)
    value["blocks"] = tuple(map(_block, value["blocks"]))
    value["limits"] = Limits(**value["limits"])
    value["tags"] = tuple(value["tags"])
    return Pipeline(**value)


def _block(found: Mapping[str, Any]) -> Block:
    """A block of a frozen definition, which may be of an older program and lack what is new."""
    return Block(
        **{
            **found,
            "type": BlockType(found["type"]),
            "isolation": Isolation(found["isolation"]),
            "upstream": tuple(found["upstream"]),
            "retry": RetryPolicy(**found["retry"]),
            "trigger_rule": TriggerRule(found.get("trigger_rule", TriggerRule.ALL_SUCCESS)),
            "conditions": tuple(Hook(**hook) for hook in found.get("conditions", ())),
            "callbacks": tuple(Hook(**hook) for hook in found.get("callbacks", ())),
            "dynamic": _dynamic(found.get("dynamic", {})),
        }
    )


def _dynamic(found: Mapping[str, Any]) -> Dynamic:
    return Dynamic(**{**found, "only": tuple(found.get("only", ()))})


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
