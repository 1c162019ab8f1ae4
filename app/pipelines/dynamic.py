"""`configuration.dynamic`, `reduce_output` and `dynamic_blocks` of a definition as a Dynamic (Mage, both versions)."""

from dataclasses import replace
from typing import Any

from app.models.pipeline import Dynamic
from app.pipelines.fields import Section

_BEHAVIOUR = ("fail", "limit")


def merge_limits(section: Section, base: Dynamic) -> Dynamic:
    """`dynamic_blocks` over what the level above says, key by key. Raises BadDefinition."""
    found: dict[str, Any] = {
        "max_children": section.integer("max_child_block_runs"),
        "max_in_flight": section.integer("max_concurrent_child_block_runs") or None,
    }
    if section.values.get("on_max_child_block_runs_exceeded") is not None:
        found["on_max_exceeded"] = section.choice("on_max_child_block_runs_exceeded", _BEHAVIOUR)
    return replace(base, **{name: value for name, value in found.items() if value is not None})


def read_dynamic(configuration: Section, base: Dynamic) -> Dynamic:
    """What a block's `configuration` says: `dynamic: true`, or `dynamic: {parent: …, reduce_output: …}`.

    Raises BadDefinition.
    """
    reduce_output = configuration.flag("reduce_output")
    value = configuration.values.get("dynamic")
    if value is None or isinstance(value, bool):
        return replace(base, parent=bool(value), reduce_output=reduce_output)
    section = configuration.section("dynamic")
    parent = section.values.get("parent")
    only: tuple[str, ...] = ()
    if isinstance(parent, list):
        only = tuple(name for name, _line in section.texts("parent"))
    elif parent is not None and not isinstance(parent, bool):
        raise section.bad("parent", "dynamic.parent must be true or a list of the blocks below")
    return replace(
        merge_limits(section, base),
        parent=bool(parent),
        only=only,
        reduce_output=reduce_output or section.flag("reduce_output"),
    )
