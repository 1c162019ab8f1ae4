"""A pipeline's `metadata.yaml` as a Pipeline: its blocks in order, or the first thing that is wrong with it."""

from collections.abc import Mapping
from dataclasses import replace

from app.models.pipeline import Block, GraphError, Isolation, Pipeline, in_order
from app.pipelines.blocks import Defaults, executor, read_block
from app.pipelines.fields import Section
from app.pipelines.problems import BadDefinition, did_you_mean
from app.pipelines.project import ProjectConfig, merge_limits, merge_retry

MAX_BLOCKS = 1_000

_OTHER_TYPES = ("integration", "streaming", "pyspark", "databricks", "execution_framework")
_NO_EFFECT = {
    "run_pipeline_in_one_process": "each block runs in a worker of its own",
    "cache_block_output_in_memory": "outputs are always stored",
    "overrides": "overrides by environment are not supported",
    "python": "the interpreter is set in the project's metadata.yaml",
}


def defaults_of(top: Section, project: ProjectConfig, environ: Mapping[str, str]) -> Defaults:
    """What the pipeline's blocks inherit: pipeline over project, key by key."""
    base = Defaults(project, project.retry, project.isolation, project.executor_type, environ)
    return replace(
        base,
        retry=merge_retry(top.section("retry_config"), project.retry),
        isolation=Isolation(top.choice("isolation", list(Isolation), project.isolation)),
        executor_type=executor(top, base),
    )


def read_pipeline(uuid: str, top: Section, defaults: Defaults) -> Pipeline:
    """The pipeline that the mapping describes. Raises BadDefinition for the first fault."""
    _check_supported(top, defaults)
    blocks, lines, notes = _blocks(top, defaults)
    _check_edges(blocks, lines, notes, defaults)
    edges = {name: [u for u in block.upstream if u not in notes] for name, block in blocks.items()}
    project = defaults.project
    limits = merge_limits(top.section("concurrency_config"), project.limits, defaults.warnings)
    return Pipeline(
        uuid=uuid,
        blocks=tuple(
            replace(blocks[name], upstream=tuple(edges[name])) for name in _order(edges, lines, top)
        ),
        name=top.text("name") or uuid,
        description=top.text("description"),
        tags=tuple(tag for tag, _line in top.texts("tags")),
        variables={**project.variables, **top.mapping("variables")},
        limits=limits,
        timezone=project.timezone,
        warnings=tuple(defaults.warnings),
    )


def _check_supported(top: Section, defaults: Defaults) -> None:
    kind = top.text("type") or "python"
    if kind in _OTHER_TYPES:
        raise top.bad("type", f"pipelines of type {kind} are not supported yet")
    if kind != "python":
        raise top.bad(
            "type", f"unknown pipeline type '{kind}'{did_you_mean(kind, ('python', *_OTHER_TYPES))}"
        )
    for key in ("callbacks", "conditionals"):
        if names := [entry.text("uuid") or "?" for entry in top.sections(key)]:
            raise top.bad(key, f"{key} are not supported yet: {', '.join(names)}")
    for name in top.section("extensions").values:
        extension = top.section("extensions").section(name)
        if extension.sections("blocks"):
            raise extension.bad("blocks", f"blocks of the extension '{name}' are not supported yet")
    for key, why in _NO_EFFECT.items():
        if top.values.get(key):
            defaults.warn(top, top.values.at(key), f"{key} has no effect: {why}")


def _blocks(top: Section, defaults: Defaults) -> tuple[dict[str, Block], dict[str, Section], set[str]]:
    """The blocks by uuid in file order, their entries, and the uuids of notes."""
    entries = top.sections("blocks")
    if len(entries) > MAX_BLOCKS:
        raise top.bad("blocks", f"the pipeline has {len(entries):,} blocks; {MAX_BLOCKS:,} is the most")
    if not entries:
        defaults.warn(top, top.values.at("blocks"), "the pipeline has no blocks")
    blocks: dict[str, Block] = {}
    seen: dict[str, Section] = {}
    notes = {entry.text("uuid") for entry in top.sections("widgets")}
    for entry in entries:
        block = read_block(entry, defaults)
        uuid = entry.text("uuid")
        if uuid in seen:
            raise entry.bad("uuid", f"block '{uuid}' is already on line {seen[uuid].line}")
        seen[uuid] = entry
        if block is None:
            notes.add(uuid)
        else:
            blocks[uuid] = block
    return blocks, seen, notes - blocks.keys()


def _check_edges(
    blocks: Mapping[str, Block], entries: Mapping[str, Section], notes: set[str], defaults: Defaults
) -> None:
    """Upstreams must exist. They alone make the graph (Mage); an edge written only downstream is warned about."""
    for uuid in blocks:
        entry = entries[uuid]
        for upstream, line in entry.texts("upstream_blocks"):
            if upstream not in blocks and upstream not in notes:
                hint = did_you_mean(upstream, blocks)
                message = f"block '{uuid}' names an unknown upstream block '{upstream}'{hint}"
                raise BadDefinition(message, entry.file, line)
        for downstream, line in entry.texts("downstream_blocks"):
            if downstream in blocks and uuid not in blocks[downstream].upstream:
                what = f"'{uuid}' names '{downstream}' downstream, which does not name it upstream"
                defaults.warn(entry, line, f"{what}: there is no such edge")


def _order(edges: Mapping[str, list[str]], entries: Mapping[str, Section], top: Section) -> list[str]:
    try:
        return in_order(edges)
    except GraphError as error:
        first = str(error).partition(": ")[2].partition(" -> ")[0]
        raise entries.get(first, top).bad("upstream_blocks", str(error)) from error
