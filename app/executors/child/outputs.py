"""What a block returned, written down; what an upstream block left, opened again. Only ever in a worker.

JSON where it comes back exactly as it was and is small; data frames as Parquet where values, schema and index
come back exactly; the rest pickled. A file is complete and on disk before anyone is told its name.
"""

from __future__ import annotations

import json
import os
import sys

from . import faults

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

#: largest JSON value that goes into the reference itself, in bytes
INLINE_LIMIT = 64 * 1024
#: more outputs than this are kept as one value that is spread out again when it is read
SPREAD_ABOVE = 64
#: the same for a block that is one of many: the service holds all their references at once
INLINE_LIMIT_OF_MANY = 2 * 1024
_DEPTH = 64
_NAMES_SHOWN = 50
_ROWS_SHOWN = 5
_CELL_SHOWN = 80


class _Inexact(Exception):
    pass


def store_all(values: list[Any], directory: str, root: str, of_many: bool = False) -> list[dict[str, Any]]:
    """Store the outputs of a block in order; their references. Small JSON stays in them.

    Of a block that is one `of_many` little stays: if its outputs are larger together, all of them go into one file.
    """
    limit = INLINE_LIMIT_OF_MANY if of_many else INLINE_LIMIT
    together = of_many and len(values) > 1 and not _fit(values, limit)
    return _each(values, lambda value, index: store(value, index, directory, root, limit), together)


def _fit(values: list[Any], limit: int) -> bool:
    """Whether the references of outputs stay small. That of a data frame does, and its file is to be its own."""
    if any(frame_library(value) for value in values):
        return True
    text = as_json(values)
    return text is not None and len(text) <= limit


def store_inline(values: list[Any]) -> list[dict[str, Any]]:
    """Outputs of a block that has nothing but JSON; OutputNotStorable for anything else."""
    return _each(values, _only_json)


def _each(
    values: list[Any], keep: Callable[[Any, int], dict[str, Any]], together: bool = False
) -> list[dict[str, Any]]:
    if together or len(values) > SPREAD_ABOVE:
        return [dict(keep(values, 0), spread=len(values))]
    return [keep(value, index) for index, value in enumerate(values)]


def _only_json(value: Any, index: int) -> dict[str, Any]:
    ref = json_ref(value)
    if ref is None:
        told = "an inline block can only return plain JSON values of up to %d KiB" % (INLINE_LIMIT // 1024)
        raise faults.OutputNotStorable("output %d (%s) cannot be kept: %s" % (index, type_name(value), told))
    return ref


def json_ref(value: Any) -> dict[str, Any] | None:
    """The reference that holds the value itself, if it is small and exact as JSON."""
    text = as_json(value)
    if text is None:
        return None
    return {"kind": "json", "value": _copy(value, text), "type": type_name(value), "size": len(text)}


def store(value: Any, index: int, directory: str, root: str, limit: int = INLINE_LIMIT) -> dict[str, Any]:
    """Store one output under `root/directory`; the reference to it (`OutputRef`)."""
    inline = json_ref(value)
    if inline is not None and inline["size"] <= limit:
        return inline
    folder = os.path.join(root, directory)
    try:
        make_folder(folder, root)
        ref = _store_frame(value, index, folder) or _store_pickle(value, index, folder)
    except OSError as error:
        told = (index, type_name(value), root, error.strerror or error)
        raise faults.OutputNotStorable("output %d (%s) cannot be written to %s: %s" % told) from error
    ref["path"] = "/".join((directory.replace(os.sep, "/"), ref["path"]))
    ref["type"] = type_name(value)
    ref.update(_shape(value))
    return ref


def _copy(value: Any, text: bytes) -> Any:
    """The value as it is now: a test that changes a list must not change the output."""
    return json.loads(text) if type(value) in (list, dict) else value


def open_input(refs: list[dict[str, Any]], root: str, uuid: str) -> Any:
    """What a downstream block gets from one upstream: None for no output, the value, or a list (Mage)."""
    values: list[Any] = []
    for ref in refs:
        value = _open(ref, root, uuid)
        values += value if ref.get("spread") else [value]
    if not values:
        return None
    return values[0] if len(values) == 1 else values


def is_plain(refs: Any) -> bool:
    """Whether references hold their values themselves."""
    return all(
        ref["kind"] == "json"
        or (ref["kind"] == "items" and "values" in ref)
        or (ref["kind"] == "list" and all(is_plain(part) for part in ref["refs"]))
        for ref in refs
    )


def as_json(value: Any) -> bytes | None:
    """The value as JSON if it is small and comes back exactly as it is, types included; else None.

    Not exact: tuples, keys that are no strings, NaN and infinities, subclasses, integers beyond 64 bits, and
    strings with NUL or lone surrogates, which not every database takes.
    """
    try:
        _check_exact(value, _DEPTH, [INLINE_LIMIT])
    except _Inexact:
        return None
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    return text if len(text) <= INLINE_LIMIT else None


def _check_exact(value: Any, depth: int, budget: list[int]) -> None:
    kind = type(value)
    budget[0] -= 2
    if kind is str:
        budget[0] -= len(value)
        if not _plain(value):
            raise _Inexact
    elif kind is list or kind is dict:
        if depth == 0:
            raise _Inexact
        for item in value:
            if kind is dict:
                if type(item) is not str:
                    raise _Inexact
                _check_exact(item, depth, budget)
                item = value[item]
            _check_exact(item, depth - 1, budget)
    elif kind is int:
        if not -(2**63) <= value < 2**63:
            raise _Inexact
    elif kind is float:
        if value - value != 0.0:  # NaN and the infinities
            raise _Inexact
    elif value is not None and kind is not bool:
        raise _Inexact
    if budget[0] < 0:
        raise _Inexact


def _plain(text: str) -> bool:
    if "\0" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def pickled(value: Any, index: int) -> bytes:
    """A value as bytes, by pickle or by cloudpickle; OutputNotStorable when neither takes it."""
    import io
    import pickle

    try:
        return pickle.dumps(value, protocol=5)
    except Exception as first:  # a value's own code may raise anything while it is pickled
        try:
            import cloudpickle
        except ImportError:
            raise _not_storable(value, index, first) from first
        stream = io.BytesIO()
        try:
            cloudpickle.dump(value, stream, protocol=5)
        except Exception as error:  # as above
            raise _not_storable(value, index, error) from error
        return stream.getvalue()


def _store_pickle(value: Any, index: int, folder: str) -> dict[str, Any]:
    import pickle

    name = "output_%d.pkl" % index
    try:
        size = write_file(folder, name, lambda stream: pickle.dump(value, stream, protocol=5))
    except OSError:
        raise
    except Exception as first:  # a value's own code may raise anything while it is pickled
        size = _store_cloudpickle(value, index, folder, name, first)
    return {"kind": "pickle", "path": name, "size": size}


def _store_cloudpickle(value: Any, index: int, folder: str, name: str, first: Exception) -> int:
    """What pickle refuses: lambdas, classes of the block's own file."""
    try:
        import cloudpickle
    except ImportError:
        raise _not_storable(value, index, first) from first
    try:
        return write_file(folder, name, lambda stream: cloudpickle.dump(value, stream, protocol=5))
    except OSError:
        raise
    except Exception as error:  # as above
        raise _not_storable(value, index, error) from error


def _not_storable(value: Any, index: int, error: Exception) -> faults.OutputNotStorable:
    deep = isinstance(error, RecursionError) or isinstance(error.__cause__, RecursionError)
    told = "it is nested too deeply" if deep else str(error)
    return faults.OutputNotStorable(
        "output %d (%s) cannot be stored: %s" % (index, type_name(value), told or type(error).__name__)
    )


def _store_frame(value: Any, index: int, folder: str) -> dict[str, Any] | None:
    """A data frame as Parquet; None if it is none, or would not come back exactly."""
    library = frame_library(value)
    if library is None:
        return None
    from . import parquet

    name = "output_%d.parquet" % index
    try:
        size = write_file(folder, name, lambda stream: parquet.write(value, library, stream))
        path = os.path.join(folder, name)
        if parquet.same(value, parquet.read(path, library), library):
            return {"kind": "parquet", "path": name, "size": size, "frame": library}
        os.unlink(path)
    except OSError:
        raise
    except Exception:
        # pyarrow and the frame libraries raise whatever they like for what Parquet cannot hold; pickle can.
        return None
    return None


def frame_library(value: Any) -> str | None:
    """Whose data frame a value is; None for what is none."""
    for library in ("pandas", "polars"):
        module = sys.modules.get(library)
        if module is not None and type(value) is getattr(module, "DataFrame", None):
            return library
    return None


def write_file(folder: str, name: str, dump: Callable[[Any], Any]) -> int:
    """Write a file whole or not at all: temporary name, fsync, rename, fsync of the folder."""
    temporary = os.path.join(folder, ".%s.%d.tmp" % (name, os.getpid()))
    try:
        with open(temporary, "wb") as stream:
            dump(stream)
            stream.flush()
            os.fsync(stream.fileno())
            size = os.fstat(stream.fileno()).st_size
        os.rename(temporary, os.path.join(folder, name))
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
    _sync_folder(folder)
    return size


def make_folder(folder: str, root: str) -> None:
    """Make a folder below `root`, on disk when this returns."""
    missing = []
    while not os.path.isdir(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    for path in reversed(missing):
        try:
            os.mkdir(path)
        except FileExistsError:
            continue  # a block beside this one made it
        _sync_folder(os.path.dirname(path))


def _sync_folder(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _open(ref: dict[str, Any], root: str, uuid: str) -> Any:
    if ref["kind"] == "json":
        return ref["value"]
    if ref["kind"] == "list":  # what all children of a dynamic block left, in order
        return [open_input(refs, root, uuid) for refs in ref["refs"]]
    if ref["kind"] in ("item", "items"):
        return _open_items(ref, root, uuid)
    if ref["kind"] == "gone":
        raise faults.InputMissing("the output of block '%s' is no longer kept: run that block again" % uuid)
    path = os.path.join(root, ref["path"])
    try:
        if ref["kind"] == "parquet":
            from . import parquet

            return parquet.read(path, ref.get("frame", "pandas"))
        import pickle

        with open(path, "rb") as stream:
            return pickle.load(stream)
    except Exception as error:  # unpickling runs the value's own code, which may raise anything
        told = "%s: %s" % (type(error).__name__, error)
        raise faults.InputMissing("the output of block '%s' cannot be opened: %s" % (uuid, told)) from error


def _open_items(ref: dict[str, Any], root: str, uuid: str) -> Any:
    from . import packs

    try:
        return packs.open_item(ref, root)[0] if ref["kind"] == "item" else packs.open_all(ref, root)
    except Exception as error:  # unpickling runs the value's own code, which may raise anything
        told = "%s: %s" % (type(error).__name__, error)
        raise faults.InputMissing("an item of block '%s' cannot be opened: %s" % (uuid, told)) from error


def type_name(value: Any) -> str:
    """How a value's type is called, for people."""
    kind = type(value)
    module = kind.__module__ or ""
    if module == "builtins" or module.startswith("_runwright"):
        return kind.__qualname__
    if module.split(".")[0] in ("pandas", "polars", "numpy"):
        module = module.split(".")[0]
    return faults.safe("%s.%s" % (module, kind.__qualname__))


def _shape(value: Any) -> dict[str, Any]:
    """Rows and columns of a data frame, for whoever only wants to show it."""
    if frame_library(value) is None:
        return {}
    names = [faults.safe(str(name)) for name in list(value.columns)[:_NAMES_SHOWN]]
    types = [str(kind) for kind in list(value.dtypes)[:_NAMES_SHOWN]]
    return {
        "rows": int(value.shape[0]),
        "columns": int(value.shape[1]),
        "column_names": names,
        "column_types": types,
        "head": _head(value, len(names)),
    }


def _head(frame: Any, width: int) -> list[list[str]]:
    """The first rows as short texts: a frame is never opened again only to be looked at."""
    first = frame.head(_ROWS_SHOWN)
    rows = first.rows() if frame_library(frame) == "polars" else first.itertuples(index=False, name=None)
    return [[faults.safe(str(cell))[:_CELL_SHOWN] for cell in row[:width]] for row in rows]
