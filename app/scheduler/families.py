"""Blocks that run once an item: how many children, which inputs, what may start. Pure, over a run's state.

The block run with the plain name is the *template*; it has no attempt. Its *dimensions* are the dynamic blocks
whose items it runs over. The children are the product of their sizes, first dimension slowest; blocks over the
same dimension go on child by child. A dynamic block that is itself a template hands out what all its children
returned, one after the other, as one dimension.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from math import prod

from app.executors.base import OutputRef
from app.models import rules
from app.models.pipeline import Block, GraphError, Pipeline, in_order
from app.models.states import BLOCK_SATISFIED, BLOCK_TERMINAL, BlockStatus
from app.scheduler.runstate import BlockState, Family, RunState

B = BlockStatus


def dimensions(pipeline: Pipeline, uuid: str) -> tuple[str, ...]:
    """The dynamic blocks over whose items a block runs; none for a block that runs once."""
    return pipeline.dimensions[uuid] if pipeline.is_dynamic else ()


def sizes(state: RunState, uuid: str) -> tuple[int, ...] | None:
    """How many items each dimension of a block has; None while one of them is not known."""
    found = []
    for dim in dimensions(state.pipeline, uuid):
        if (packs := _packs(state, dim)) is None:
            return None
        found.append(sum(count_of(pack) for pack in packs))
    return tuple(found)


def _packs(state: RunState, source: str) -> list[OutputRef | None] | None:
    """The items that a dynamic block left: one pack, or one of each of its children; None while it is not done."""
    block = state.blocks[source]
    if block.state not in BLOCK_SATISFIED:
        return None
    if (family := state.families.get(source)) is not None:
        done = [child.outputs for child in family.children if child.state is B.COMPLETED]
        return [pack_of(outputs) for outputs in done]
    if block.outputs and block.outputs[0]["kind"] == "list":  # carried over from an earlier run
        return [pack_of(refs) for refs in block.outputs[0]["refs"]]
    return [pack_of(block.outputs)]


def pack_of(outputs: Sequence[OutputRef]) -> OutputRef | None:
    """The pack of items among the outputs of a dynamic block."""
    return outputs[0] if outputs and outputs[0]["kind"] == "items" else None


def count_of(pack: OutputRef | None) -> int:
    """How many items a pack holds; what a skipped block left holds none."""
    return int(pack["count"]) if pack is not None else 0


def plannable(state: RunState) -> list[str]:
    """The templates whose children can be made now, upstreams first."""
    if not state.pipeline.is_dynamic:
        return []
    return [
        block.uuid
        for block in state.pipeline.blocks
        if dimensions(state.pipeline, block.uuid)
        and state.blocks[block.uuid].state is B.INITIAL
        and state.blocks[block.uuid].children is None
        and sizes(state, block.uuid) is not None
    ]


def without_items(state: RunState) -> dict[str, rules.Never]:
    """Blocks whose number of items will never be known, whatever their trigger rule: a dynamic block left none."""
    found: dict[str, rules.Never] = {}
    if not state.pipeline.is_dynamic:
        return found
    for uuid, block in state.blocks.items():
        if block.state is B.INITIAL and block.children is None:
            for dim in dimensions(state.pipeline, uuid):
                if (status := state.blocks[dim].state) in rules.INHERITED:
                    reason = f"dynamic block '{dim}' is {status}: there are no items"
                    found.setdefault(uuid, rules.Never(rules.INHERITED[status], reason))
    return found


def names(state: RunState, uuid: str, shape: Sequence[int], count: int) -> list[str]:
    """What the first `count` children of a block are called: by their items' `block_uuid`, else by number."""
    dims = dimensions(state.pipeline, uuid)
    given = [_names_of(state, dim) for dim in dims]
    found: list[str] = []
    seen: set[str] = set()
    for number in range(count):
        index = unravel(number, shape)
        name = ":".join([uuid, *(names_[i] for names_, i in zip(given, index, strict=True))])
        name = f"{name}:{number}" if name in seen else name
        seen.add(name)
        found.append(name)
    return found


def _names_of(state: RunState, source: str) -> list[str]:
    found: list[str] = []
    for pack in _packs(state, source) or ():
        names_ = dict(pack.get("names") or {}) if pack is not None else {}
        found += [str(names_.get(str(i), len(found) + i)) for i in range(count_of(pack))]
    return found


def unravel(number: int, shape: Sequence[int]) -> tuple[int, ...]:
    """The index along each dimension of child `number`.

    >>> [unravel(n, (2, 3)) for n in range(6)]
    [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    """
    index = []
    for size in reversed(shape):
        number, at = divmod(number, size)
        index.append(at)
    return tuple(reversed(index))


def ravel(index: Sequence[int], shape: Sequence[int]) -> int:
    """The child that has this index: the inverse of :func:`unravel`."""
    number = 0
    for at, size in zip(index, shape, strict=True):
        number = number * size + at
    return number


def inputs(state: RunState, child: BlockState) -> list[tuple[str, Sequence[OutputRef]]]:
    """What the upstream blocks left for one child, in the order in which the block names them."""
    return [(up, _left(state, child, up)) for up in child.block.upstream]


def _left(state: RunState, child: BlockState, upstream: str) -> Sequence[OutputRef]:
    family = state.families[child.block.uuid]
    index = dict(zip(family.dims, unravel(child.item_index or 0, family.shape), strict=True))
    if state.pipeline.by_uuid[upstream].hands_items(child.block.uuid):
        return [_item(_packs(state, upstream) or [], index[upstream])]
    twin = _twin(state, family, child, upstream)
    if twin is not None:
        return twin.outputs
    if _was_carried(state, family, upstream):
        return _of_list(state, family, child, upstream)[0]
    return state.blocks[upstream].outputs


def _was_carried(state: RunState, family: Family, upstream: str) -> bool:
    """Whether an upstream that each child goes along with was taken over whole: there is its list, and no child."""
    block = state.blocks[upstream]
    return block.children is None and bool(block.outputs) and _goes_along(state, family, upstream)


def _of_list(
    state: RunState, family: Family, child: BlockState, upstream: str
) -> tuple[Sequence[OutputRef], BlockStatus]:
    """What the child that this one goes along with left in an earlier run, and what had become of it."""
    left = state.blocks[upstream].outputs[0]
    number, without = _projected(state, family, child, upstream), left.get("without", ())
    before = bisect_left(without, [number])
    if before < len(without) and without[before][0] == number:
        return (), BlockStatus(without[before][1])
    refs: Sequence[Sequence[OutputRef]] = left["refs"]
    return (refs[number - before] if number - before < len(refs) else ()), B.COMPLETED


def _item(packs: Sequence[OutputRef | None], number: int) -> OutputRef:
    """A reference to one item of several packs that are counted through."""
    ends = list(accumulate(count_of(pack) for pack in packs))
    which = bisect_right(ends, number)
    pack = packs[which]
    assert pack is not None
    at = number - (ends[which - 1] if which else 0)
    if "values" in pack:
        meta = pack.get("meta") or []
        return {"kind": "json", "value": pack["values"][at], "meta": meta[at] if at < len(meta) else {}}
    return {"kind": "item", "path": pack["path"], "index": at}


def _goes_along(state: RunState, family: Family, upstream: str) -> bool:
    """Whether each child has one child of `upstream` to wait for, instead of all of them."""
    block = state.pipeline.by_uuid[upstream]
    if block.dynamic.reduce_output or block.hands_items(family.template.block.uuid):
        return False
    dims = dimensions(state.pipeline, upstream)
    return bool(dims) and set(dims) <= set(family.dims)


def _projected(state: RunState, family: Family, child: BlockState, upstream: str) -> int:
    index = dict(zip(family.dims, unravel(child.item_index or 0, family.shape), strict=True))
    shape = dict(zip(family.dims, family.shape, strict=True))
    dims = dimensions(state.pipeline, upstream)
    return ravel([index[d] for d in dims], [shape[d] for d in dims])


def _twin(state: RunState, family: Family, child: BlockState, upstream: str) -> BlockState | None:
    """The child of `upstream` that a child goes along with."""
    other = state.families.get(upstream)
    if other is None or not _goes_along(state, family, upstream):
        return None
    number = _projected(state, family, child, upstream)
    return other.children[number] if number < len(other.children) else None


def may_carry(state: RunState, child: BlockState) -> bool:
    """Whether a child gets what it got in the run that this one retries: everything that it reads was carried over."""
    family = state.families[child.block.uuid]
    for upstream in child.block.upstream:
        twin = _twin(state, family, child, upstream)
        if not (twin.carried if twin is not None else state.blocks[upstream].carried):
            return False
    return True


def may_start(state: RunState, child: BlockState) -> bool | rules.Never:
    """Whether a child may start: its block's trigger rule, over what it itself waits for."""
    family = state.families[child.block.uuid]
    statuses = {up: _status_for(state, family, child, up) for up in child.block.upstream}
    verdict = rules.may_start(child.block, statuses)
    if verdict is True and child.after:
        others = [state.children[name] for name in child.after]
        if any(other.state in _TROUBLE for other in others):
            return rules.Never(B.UPSTREAM_FAILED, f"one of {', '.join(child.after)} did not complete")
        return all(other.state in BLOCK_SATISFIED for other in others)
    return verdict


_TROUBLE = BLOCK_TERMINAL - BLOCK_SATISFIED


def _status_for(state: RunState, family: Family, child: BlockState, upstream: str) -> BlockStatus:
    twin = _twin(state, family, child, upstream)
    if twin is not None:
        return twin.state
    if _was_carried(state, family, upstream):
        return _of_list(state, family, child, upstream)[1]
    status = state.status_of(upstream)
    return B.COMPLETED if status is B.SKIPPED else status


def below(state: RunState, ended: Iterable[str]) -> Iterator[BlockState]:
    """The children that may be concerned by the end of these blocks and children."""
    for uuid in ended:
        block = state.block(uuid)
        for down in state.pipeline.downstream[block.block.uuid]:
            if (family := state.families.get(down)) is None:
                continue
            if block.item_index is not None and _goes_along(state, family, block.block.uuid):
                yield from _with(state, family, block)
            else:
                yield from family.children
        if block.item_index is not None:
            yield from state.families[block.block.uuid].followers.get(uuid, ())


def _with(state: RunState, family: Family, upstream: BlockState) -> Iterator[BlockState]:
    """The children that go along with a child of an upstream."""
    dims = dimensions(state.pipeline, upstream.block.uuid)
    if dims == family.dims:
        number = upstream.item_index or 0
        if number < len(family.children):
            yield family.children[number]
        return
    for child in family.children:
        if _projected(state, family, child, upstream.block.uuid) == upstream.item_index:
            yield child


def set_order(state: RunState, family: Family) -> None:
    """Let children wait for those that their items name in `upstream_blocks`, by uuid or by the item's own name."""
    if len(family.dims) != 1:
        return
    named = _after_of(state, family.dims[0])
    prefix = family.template.block.uuid
    for child in family.children:
        wanted_ = named.get(child.item_index or 0, ())
        child.after = tuple(n if ":" in n else f"{prefix}:{n}" for n in wanted_)
        for name in child.after:
            family.followers.setdefault(name, []).append(child)


def _after_of(state: RunState, source: str) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    offset = 0
    for pack in _packs(state, source) or ():
        if pack is not None:
            found |= {offset + int(i): list(names_) for i, names_ in (pack.get("after") or {}).items()}
        offset += count_of(pack)
    return found


def bad_order(family: Family) -> str | None:
    """What is wrong with the order that items ask for: an unknown name, or a circle."""
    if not family.followers:
        return None
    edges = {child.name: child.after for child in family.children}
    try:
        in_order(edges)
    except GraphError as error:
        return f"upstream_blocks of the items: {error}"
    return None


def outcome(state: RunState, family: Family) -> BlockStatus | None:
    """What becomes of a template; None while a child may still move."""
    if family.open:
        return None
    found = {child.state for child in family.children}
    if not found or (found & BLOCK_SATISFIED and (state.allow_blocks_to_fail or not found & _TROUBLE)):
        return B.COMPLETED
    for status in (B.FAILED, B.CANCELLED):
        if status in found:
            return status
    if found & BLOCK_SATISFIED:  # a condition that kept some of the children from running is no failure
        return B.COMPLETED
    return B.UPSTREAM_FAILED if B.UPSTREAM_FAILED in found else B.CONDITION_FAILED


def as_list(family: Family) -> dict[str, object]:
    """What a template leaves: the outputs of its completed children in order, as one reference.

    `without` tells a retry which children are not among them, and why: `[[number, status], ...]`.
    """
    refs = [list(child.outputs) for child in family.children if child.state is B.COMPLETED]
    found = {"kind": "list", "refs": refs, "type": "list", "count": len(refs)}
    without = [[n, str(c.state)] for n, c in enumerate(family.children) if c.state is not B.COMPLETED]
    return {**found, **({"without": without} if without else {})}


def wanted(shape: Sequence[int], block: Block) -> tuple[int, str | None]:
    """How many children a block gets, and why it may get none: too many (`dynamic_blocks`)."""
    count, most = prod(shape), block.dynamic.max_children
    if count <= most:
        return count, None
    if block.dynamic.on_max_exceeded == "limit":
        return most, None
    return 0, f"{count:,} children, and max_child_block_runs is {most:,}"
