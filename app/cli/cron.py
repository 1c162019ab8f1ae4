"""`runwright cron explain`: what an interval means, in words and as execution dates."""

from collections.abc import Mapping

import typer

from app import clock
from app.cli.exits import Exit
from app.cli.tables import show
from app.pipelines.triggers import TriggerEntry
from app.scheduler.ahead import row_of
from app.scheduler.preview import marks, preview
from app.scheduler.words import in_words

#: Clock changes that a person is shown; `* 2 * * *` has sixty in one night.
_MARKS = 10


def explain_interval(
    interval: str, timezone: str, count: int, settings: Mapping[str, str | None], output: str
) -> int:
    """Say it in words, show the next execution dates in the trigger's zone and in UTC, and what clock changes do."""
    now = clock.now()
    given = {name: value for name, value in settings.items() if value is not None}
    entry = TriggerEntry(
        pipeline_uuid="", name="", schedule_interval=interval, timezone=timezone, settings=given
    )
    trigger = row_of(entry, now=now)
    slots = [] if interval.strip().lower() == "@once" else preview(trigger, now=now, count=count)
    rows: list[dict[str, object]] = [
        {
            "local": f"{slot.execution_date:%a %Y-%m-%d %H:%M:%S %z}",
            "utc": f"{slot.execution_date.astimezone(now.tzinfo):%Y-%m-%dT%H:%M:%SZ}",
            "notes": "; ".join(note.text for note in slot.notes),
        }
        for slot in slots
    ]
    changes = marks(trigger, now, 366)
    if output != "json":
        typer.echo(f"{interval}: {in_words(interval)} ({timezone})\n")
    show(rows, output, empty=f"{interval} has no execution dates of its own")
    if output != "json" and changes:
        typer.echo("\nwhat clock changes do to it within a year:")
        for mark in changes[:_MARKS]:
            typer.echo(f"  {mark.text}")
        if len(changes) > _MARKS:
            typer.echo(f"  and {len(changes) - _MARKS} more")
    return Exit.OK
