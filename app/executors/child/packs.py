"""The items of a dynamic block: written into one file, opened one at a time (Mage: `configuration.dynamic`).

The file holds every item and what is told of it, then a table of where each lies, then the table's place. A block
that runs for one item reads that one; the service reads none.
"""

from __future__ import annotations

import json
import os
import struct

from . import faults, outputs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

FILE = "items.pack"
#: keys of an item's metadata that are for the engine; the others are kwargs of the block that gets the item
RESERVED = ("block_uuid", "upstream_blocks")

_ROW = struct.Struct("<QQBQQ")  # of an item: offset, size, kind; of its metadata: offset, size
_END = struct.Struct("<QQ8s")  # offset of the table, number of items, magic
_MAGIC = b"rwpack01"
_JSON, _PICKLE = 0, 1
_ODD = "a dynamic block returns [[item, ...], [metadata, ...]], a data frame, or a generator of items"


def split(returned: Any) -> tuple[Iterable[Any], list[dict[str, Any]]]:
    """The items that a dynamic block returned, and what it says of each. Raises BlockFault for anything else."""
    if returned is None:
        return [], []
    if hasattr(type(returned), "__next__"):
        return returned, []
    parts = list(returned) if type(returned) in (list, tuple) else [returned]
    if not parts:
        return [], []
    items, metas = parts[0], parts[1] if len(parts) == 2 else []
    if len(parts) > 2 or not isinstance(metas, (list, tuple)):
        raise faults.BlockFault(_ODD)
    return _items(items), [_meta(meta, number) for number, meta in enumerate(metas)]


def _items(value: Any) -> Iterable[Any]:
    library = outputs.frame_library(value)
    if library == "pandas":
        return (value.iloc[[row]] for row in range(len(value)))
    if library == "polars":
        return (value[row] for row in range(value.height))
    if isinstance(value, (list, tuple)):
        return value
    raise faults.BlockFault("%s; this one returned %s" % (_ODD, outputs.type_name(value)))


def _meta(meta: Any, number: int) -> dict[str, Any]:
    if meta is None:
        return {}
    if not isinstance(meta, dict) or any(type(key) is not str for key in meta):
        raise faults.BlockFault("the metadata of item %d must be a mapping with names as keys" % number)
    name, after = meta.get("block_uuid"), meta.get("upstream_blocks")
    if name is not None and (not isinstance(name, (str, int)) or not str(name) or len(str(name)) > 100):
        raise faults.BlockFault("block_uuid of item %d must be a short text, not %r" % (number, name))
    if after is not None and (not isinstance(after, list) or any(type(one) is not str for one in after)):
        raise faults.BlockFault("upstream_blocks of item %d must be a list of names" % number)
    return meta


def store(returned: Any, directory: str, root: str) -> dict[str, Any]:
    """Store what a dynamic block returned; the reference to all of it."""
    items, metas = split(returned)
    if type(items) in (list, tuple):
        inline = _inline(list(items), metas)
        if inline is not None:
            return inline
    folder = os.path.join(root, directory)
    outputs.make_folder(folder, root)
    counted: list[int] = []
    size = outputs.write_file(folder, FILE, lambda stream: counted.append(_write(stream, items, metas)))
    path = "/".join((directory.replace(os.sep, "/"), FILE))
    return {"kind": "items", "path": path, "count": counted[0], "size": size, "type": "items", **_told(metas)}


def store_inline(returned: Any) -> dict[str, Any]:
    """The items of a block that has nothing but JSON; OutputNotStorable for anything else."""
    items, metas = split(returned)
    ref = _inline(list(items), metas)
    if ref is None:
        raise faults.OutputNotStorable(
            "the items cannot be kept: an inline block can only hand out plain JSON values of up to %d KiB in all"
            % (outputs.INLINE_LIMIT // 1024)
        )
    return ref


def _inline(items: list[Any], metas: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The reference that holds the items themselves, if all of them are small and exact as JSON."""
    text = outputs.as_json([items, metas])
    if text is None:
        return None
    values, told = json.loads(text)
    ref = {"kind": "items", "count": len(items), "size": len(text), "type": "items", "values": values}
    return {**ref, "meta": told, **_told(metas)}


def _told(metas: list[dict[str, Any]]) -> dict[str, Any]:
    """What the engine has to know of the items: their names, and which of them wait for which."""
    names = {str(i): str(m["block_uuid"]) for i, m in enumerate(metas) if m.get("block_uuid") is not None}
    after = {str(i): m["upstream_blocks"] for i, m in enumerate(metas) if m.get("upstream_blocks")}
    return {**({"names": names} if names else {}), **({"after": after} if after else {})}


def _write(stream: Any, items: Iterable[Any], metas: list[dict[str, Any]]) -> int:
    rows = bytearray()
    count = 0
    for count, item in enumerate(items, 1):
        at = stream.tell()
        kind = _dump(item, count - 1, stream)
        between = stream.tell()
        if count <= len(metas) and metas[count - 1]:
            _dump_pickle(metas[count - 1], count - 1, stream)
        rows += _ROW.pack(at, between - at, kind, between, stream.tell() - between)
    table = stream.tell()
    stream.write(rows)
    stream.write(_END.pack(table, count, _MAGIC))
    return count


def _dump(item: Any, number: int, stream: Any) -> int:
    text = outputs.as_json(item)
    if text is not None:
        stream.write(text)
        return _JSON
    _dump_pickle(item, number, stream)
    return _PICKLE


def _dump_pickle(value: Any, number: int, stream: Any) -> None:
    stream.write(outputs.pickled(value, number))


def open_item(ref: dict[str, Any], root: str) -> tuple[Any, dict[str, Any]]:
    """One item and what is told of it."""
    with open(os.path.join(root, ref["path"]), "rb") as stream:
        table, count = _table(stream)
        if not 0 <= ref["index"] < count:
            raise ValueError("there is no item %d of %d" % (ref["index"], count))
        stream.seek(table + ref["index"] * _ROW.size)
        return _read(stream, _ROW.unpack(stream.read(_ROW.size)))


def open_all(ref: dict[str, Any], root: str) -> list[Any]:
    """Every item, for a block that wants the list."""
    if "values" in ref:
        return list(ref["values"])
    with open(os.path.join(root, ref["path"]), "rb") as stream:
        table, count = _table(stream)
        stream.seek(table)
        rows = list(_ROW.iter_unpack(stream.read(count * _ROW.size)))
        return [_read(stream, row)[0] for row in rows]


def _table(stream: Any) -> tuple[int, int]:
    stream.seek(-_END.size, os.SEEK_END)
    table, count, magic = _END.unpack(stream.read(_END.size))
    if magic != _MAGIC:
        raise ValueError("the file is not a pack of items")
    return table, count


def _read(stream: Any, row: tuple[int, ...]) -> tuple[Any, dict[str, Any]]:
    import pickle

    at, size, kind, meta_at, meta_size = row
    stream.seek(at)
    data = stream.read(size)
    value = json.loads(data) if kind == _JSON else pickle.loads(data)
    if not meta_size:
        return value, {}
    stream.seek(meta_at)
    return value, pickle.loads(stream.read(meta_size))


def kwargs_of(metas: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The kwargs that metadata of items stands for."""
    return {name: value for meta in metas for name, value in meta.items() if name not in RESERVED}


def metas_of(inputs: list[Any], root: str) -> Iterator[dict[str, Any]]:
    """What is told of the items among the inputs of a block."""
    for _uuid, refs in inputs:
        for ref in refs:
            if ref["kind"] == "item":
                yield open_item(ref, root)[1]
            elif ref["kind"] == "json" and ref.get("meta"):  # of all items together it is a list
                yield ref["meta"]
