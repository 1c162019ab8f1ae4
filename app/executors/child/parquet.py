"""Data frames as Parquet, and whether they came back exactly. Needs the user's own pandas and pyarrow, or polars."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def write(frame: Any, library: str, stream: Any) -> None:
    """Write a frame; raises whatever the library raises for a frame that Parquet cannot hold."""
    if library == "polars":
        frame.write_parquet(stream)
        return
    import pyarrow  # type: ignore[import-untyped, import-not-found, unused-ignore]
    import pyarrow.parquet  # type: ignore[import-untyped, import-not-found, unused-ignore]

    table = pyarrow.Table.from_pandas(frame)
    pyarrow.parquet.write_table(table, stream)


def read(path: str, library: str) -> Any:
    """Read a frame that :func:`write` wrote, as a frame of the same library."""
    if library == "polars":
        import polars  # type: ignore[import-not-found, unused-ignore]

        return polars.read_parquet(path)
    import pyarrow.parquet  # type: ignore[import-untyped, import-not-found, unused-ignore]

    return pyarrow.parquet.ParquetFile(path).read().to_pandas()


def same(left: Any, right: Any, library: str) -> bool:
    """Whether two frames are alike in values, types, column names and index."""
    if library == "polars":
        return bool(left.schema == right.schema and left.equals(right))
    return (
        _same_index(left.columns, right.columns)
        and _same_index(left.index, right.index)
        and list(left.dtypes) == list(right.dtypes)
        and not any(_mixed(left.iloc[:, n]) for n in range(left.shape[1]))
        and left.attrs == right.attrs
        and bool(left.equals(right))
    )


def _same_index(left: Any, right: Any) -> bool:
    if left.nlevels > 1 and left.nlevels == right.nlevels:
        levels = range(left.nlevels)
        return all(_same_index(left.get_level_values(n), right.get_level_values(n)) for n in levels)
    return (
        type(left) is type(right)
        and left.dtype == right.dtype
        and list(left.names) == list(right.names)
        and getattr(left, "freq", None) == getattr(right, "freq", None)
        and not _mixed(left)
        and bool(left.equals(right))
    )


def _mixed(values: Any) -> bool:
    """Objects compare too kindly (True == 1, None and NaN as missing): only plain strings count as exact."""
    if values.dtype == object:
        return any(type(value) is not str for value in values)
    categories = getattr(values.dtype, "categories", None)
    return categories is not None and _mixed(categories)
