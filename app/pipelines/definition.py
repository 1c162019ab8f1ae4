"""A pipeline's `metadata.yaml` as a Pipeline: its blocks in order, or the first thing that is wrong with it."""

from collections.abc import Mapping
from dataclasses import replace

from app.models.pipeline import Block, GraphError, Hook, Isolation, Keep, Pipeline, in_order
from app.pipelines import keys
from app.pipelines.blocks import Defaults, executor, read_block, read_hook
from app.pipelines.dynamic import merge_limits as merge_dynamic
from app.pipelines.fields import Section
from app.pipelines.problems import ABOUT, BadDefinition, did_you_mean
from app.pipelines.project import ProjectConfig, merge_limits, merge_retry

MAX_BLOCKS = 1_000

_OTHER_TYPES = ("integration", "streaming", "pyspark", "databricks", "execution_framework")
_NO_EFFECT = {
    "run_pipeline_in_one_process": "each block runs in a worker of its own",
    "cache_block_output_in_memory": "outputs are always stored",
    "python": "the interpreter is set in the project's metadata.yaml",
}


def defaults_of(top: Section, project: ProjectConfig, environ: Mapping[str, str]) -> Defaults:
    """What the pipeline's blocks inherit: pipeline over project, key by key."""
    base = Defaults(project, project.retry, project.isolation, project.executor_type, environ)
    return replace(
        base,
        retry=merge_retry(top.section("retry_config"), project.retry, base.warn),
        timeout_s=top.number("block_timeout") or project.block_timeout_s,
        isolation=Isolation(top.choice("isolation", list(Isolation), project.isolation)),
        executor_type=executor(top, base),
        dynamic=merge_dynamic(top.section("dynamic_blocks"), project.dynamic),
    )


def read_pipeline(uuid: str, top: Section, defaults: Defaults) -> Pipeline:
    """The pipeline that the mapping describes. Raises BadDefinition for the first fault."""
    keys.warn_unknown(top, keys.PIPELINE, defaults.warn)
    _check_supported(top, defaults)
    blocks, lines, notes = _blocks(top, defaults)
    _check_edges(blocks, lines, notes, defaults)
    _fill_replicas(blocks, lines)
    edges = {name: [u for u in block.upstream if u not in notes] for name, block in blocks.items()}
    _add_hooks(blocks, lines, top, defaults)
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
        keep=_keep(top.section("retention"), defaults),
        warnings=tuple(defaults.warnings),
    )


def _keep(section: Section, defaults: Defaults) -> Keep:
    """`retention` of a pipeline."""
    keys.warn_unknown(section, keys.RETENTION, defaults.warn)
    return Keep(
        runs_days=section.number("runs_days"),
        runs=section.integer("runs"),
        logs_days=section.number("logs_days"),
        outputs_days=section.number("outputs_days"),
    )


def _check_supported(top: Section, defaults: Defaults) -> None:
    kind = top.text("type") or "python"
    if kind in _OTHER_TYPES:
        raise top.bad("type", f"pipelines of type {kind} are not supported{ABOUT}")
    if kind != "python":
        raise top.bad(
            "type", f"unknown pipeline type '{kind}'{did_you_mean(kind, ('python', *_OTHER_TYPES))}"
        )
    for name in top.section("extensions").values:
        extension = top.section("extensions").section(name)
        if extension.sections("blocks"):
            raise extension.bad("blocks", f"blocks of the extension '{name}' are not supported{ABOUT}")
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


def _fill_replicas(blocks: dict[str, Block], entries: Mapping[str, Section]) -> None:
    """Give each replica the file of its original (Mage: `replicated_block`)."""
    for uuid, block in blocks.items():
        if (original := block.replica_of) is None:
            continue
        of = blocks.get(original)
        if of is None or of.replica_of is not None:
            what = (
                "is a replica itself"
                if of
                else f"is not a block of this pipeline{did_you_mean(original, blocks)}"
            )
            raise entries[uuid].bad(
                "replicated_block", f"block '{uuid}' is a replica of '{original}', which {what}"
            )
        if of.type is not block.type:
            raise entries[uuid].bad("type", f"block '{uuid}' replicates '{original}', which is a {of.type}")
        blocks[uuid] = replace(block, file=of.file)


def _add_hooks(
    blocks: dict[str, Block], entries: Mapping[str, Section], top: Section, defaults: Defaults
) -> None:
    """Give blocks their conditionals and callbacks, whichever side names the other (Mage writes both)."""
    for kind, field, own in (
        ("conditional", "conditions", "conditional_blocks"),
        ("callback", "callbacks", "callback_blocks"),
    ):
        hooks = {}
        for section in top.sections(f"{kind}s"):
            hook = read_hook(section, kind, defaults)
            if hook.uuid in hooks or hook.uuid in blocks:
                raise section.bad("uuid", f"the uuid '{hook.uuid}' is taken in this pipeline")
            hooks[hook.uuid] = hook
            for name, line in section.texts("upstream_blocks"):
                if name not in blocks:
                    message = (
                        f"{kind} '{hook.uuid}' names an unknown block '{name}'{did_you_mean(name, blocks)}"
                    )
                    raise BadDefinition(message, section.file, line)
                _attach(blocks, name, field, hook)
        for uuid in blocks:
            for name, line in entries[uuid].texts(own):
                if name not in hooks:
                    message = f"block '{uuid}' names an unknown {kind} '{name}'{did_you_mean(name, hooks)}"
                    raise BadDefinition(message, entries[uuid].file, line)
                _attach(blocks, uuid, field, hooks[name])


def _attach(blocks: dict[str, Block], uuid: str, field: str, hook: Hook) -> None:
    known: tuple[Hook, ...] = getattr(blocks[uuid], field)
    if hook not in known:
        blocks[uuid] = replace(blocks[uuid], **{field: (*known, hook)})  # type: ignore[arg-type]


def _order(edges: Mapping[str, list[str]], entries: Mapping[str, Section], top: Section) -> list[str]:
    try:
        return in_order(edges)
    except GraphError as error:
        first = str(error).partition(": ")[2].partition(" -> ")[0]
        raise entries.get(first, top).bad("upstream_blocks", str(error)) from error
