"""Lists and single things, on a terminal or for a program."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeVar

import typer
from pydantic import BaseModel

Thing = TypeVar("Thing", bound=BaseModel)


def show(rows: Sequence[Mapping[str, object]], output: str, *, empty: str = "nothing") -> None:
    """Write rows as aligned columns or as one JSON list."""
    if output == "json":
        _json(rows)
    elif not rows:
        typer.echo(empty)
    else:
        names = list(rows[0])
        cells = [[cell(row[name]) for name in names] for row in rows]
        widths = [max(map(len, column)) for column in zip(*cells, [*names], strict=True)]
        for line in [[name.upper() for name in names], *cells]:
            typer.echo(
                "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
            )


def show_all(
    found: Sequence[Thing], row: Callable[[Thing], Mapping[str, object]], output: str, *, empty: str
) -> None:
    """Write things of the API: on a terminal what `row` tells of each, else all of them as one JSON list."""
    rows = [one.model_dump(mode="json") if output == "json" else row(one) for one in found]
    show(rows, output, empty=empty)


def show_one(thing: Mapping[str, object], output: str) -> None:
    """Write one thing as `name: value` lines, what is empty left out, or as one JSON object."""
    if output == "json":
        _json(thing)
        return
    told = {name: text for name, value in thing.items() if (text := cell(value))}
    width = max(map(len, told), default=0) + 1
    for name, text in told.items():
        typer.echo(f"{name + ':':<{width}} {text}")


def cell(value: object) -> str:
    """A value as one cell.

    >>> cell(None), cell([]), cell({"a": 1}), cell(["x", "y"]), cell(datetime(2026, 1, 31, 8, tzinfo=UTC))
    ('', '', '{"a": 1}', 'x, y', '2026-01-31 08:00:00Z')
    """
    match value:
        case None:
            return ""
        case datetime():
            return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"
        case dict():
            return "" if not value else json.dumps(value, default=str)
        case list() | tuple():
            return ", ".join(map(cell, value))
        case _:
            return str(value)


def _json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, default=str))
