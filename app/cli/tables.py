"""Lists on a terminal or for a program."""

import json
from collections.abc import Mapping, Sequence

import typer


def show(rows: Sequence[Mapping[str, object]], output: str, *, empty: str = "nothing") -> None:
    """Write rows as aligned columns or as one JSON list."""
    if output == "json":
        typer.echo(json.dumps(rows, indent=2, default=str))
    elif not rows:
        typer.echo(empty)
    else:
        names = list(rows[0])
        cells = [[str("" if row[name] is None else row[name]) for name in names] for row in rows]
        widths = [max(map(len, column)) for column in zip(*cells, [*names], strict=True)]
        for line in [[name.upper() for name in names], *cells]:
            typer.echo(
                "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            )
