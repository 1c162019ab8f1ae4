"""`mage_ai.io.file.FileIO`: data frames from and to files, by pandas."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: format -> pandas' reader, writer
_FORMATS = {
    "csv": ("read_csv", "to_csv"),
    "json": ("read_json", "to_json"),
    "parquet": ("read_parquet", "to_parquet"),
    "hdf5": ("read_hdf", "to_hdf"),
    "xml": ("read_xml", "to_xml"),
    "xlsx": ("read_excel", "to_excel"),
}
_ENDINGS = {
    "txt": "csv",
    "tsv": "csv",
    "jsonl": "json",
    "pq": "parquet",
    "h5": "hdf5",
    "hdf": "hdf5",
    "xls": "xlsx",
}


class FileIO:
    """Loads and exports data frames; a relative path is one of the project folder."""

    def __init__(self, verbose: bool = False, **unused: Any) -> None:
        self.verbose = verbose

    @classmethod
    def with_config(cls, config: Any = None, **unused: Any) -> FileIO:
        """A file needs no settings."""
        return cls()

    def __enter__(self) -> FileIO:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    def load(self, filepath: Any, format: Any = None, limit: int | None = None, **options: Any) -> Any:
        """The file as a data frame; `limit`: so many rows at most. Other options are pandas'."""
        import pandas  # type: ignore[import-untyped]

        kind = _format_of(filepath, format)
        if kind == "csv" and _ending(filepath) == "tsv":
            options.setdefault("sep", "\t")
        if kind == "json" and _ending(filepath) == "jsonl":
            options.setdefault("lines", True)
        frame = getattr(pandas, _FORMATS[kind][0])(filepath, **options)
        return frame if limit is None else frame.head(limit)

    def export(self, data: Any, filepath: Any, format: Any = None, **options: Any) -> None:
        """Write a data frame; folders are made. Other options are pandas'. A CSV file gets no index, as in Mage."""
        kind = _format_of(filepath, format)
        if kind == "csv":
            options.setdefault("index", False)
            if _ending(filepath) == "tsv":
                options.setdefault("sep", "\t")
        if kind == "json" and _ending(filepath) == "jsonl":
            options.setdefault("orient", "records")
            options.setdefault("lines", True)
        if kind == "hdf5":
            options.setdefault("key", "data")
        folder = os.path.dirname(os.fspath(filepath))
        if folder and "://" not in os.fspath(filepath):
            os.makedirs(folder, exist_ok=True)
        getattr(data, _FORMATS[kind][1])(filepath, **options)


def _ending(filepath: Any) -> str:
    return str(os.path.splitext(os.fspath(filepath))[1]).lstrip(".").lower()


def _format_of(filepath: Any, format: Any) -> str:
    """The format that is named, else the one of the file's ending. Raises ValueError."""
    name = str(getattr(format, "value", format) or _ending(filepath)).lower()
    found = _ENDINGS.get(name, name)
    if found not in _FORMATS:
        raise ValueError(
            "FileIO cannot tell the format of '%s': give format= csv, json, parquet …" % filepath
        )
    return found


NAMES = {"FileIO": FileIO}
