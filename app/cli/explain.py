"""`runwright triggers explain` and `runwright runs explain`: the reasons, in words."""

from collections.abc import Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

import typer

from app import clock
from app.cli import tables
from app.cli.exits import Exit
from app.cli.service import find_service
from app.client import Client, NotFound
from app.errors import InvalidInput
from app.models.explain_schemas import NearSlot, Reason


def run(server: str | None, run_id: int, output: str) -> int:
    """Say why a run waits, what it does, or why it ended so."""
    with find_service(server).client() as client:
        found = client.explain_run(run_id)
    if output == "json":
        tables.show_one(found.model_dump(mode="json"), output)
        return Exit.OK
    typer.echo(f"run {run_id} is {found.status}")
    _say(found.reasons)
    return Exit.OK


def trigger(server: str | None, trigger_id: int, at: str | None, output: str) -> int:
    """Say why a trigger did, did not or will start a run at a moment; now if none is given."""
    with find_service(server).client() as client:
        zone, name = zone_of(client, trigger_id)
        moment = clock.now() if at is None else moment_of(at, zone)
        found = client.explain_schedule(trigger_id, moment)
    if output == "json":
        tables.show_one(found.model_dump(mode="json"), output)
        return Exit.OK
    typer.echo(f"trigger {trigger_id}{name} at {_local(found.at, zone)}")
    _say(found.reasons)
    for word, near in (("before", found.previous), ("after", found.next)):
        if near is not None:
            typer.echo(f"{word + ':':<7} {_near(near, zone)}")
    return Exit.OK


def moment_of(text: str, zone: ZoneInfo, option: str = "--at") -> datetime:
    """A time as it is typed; without an offset it is what the clock shows in the trigger's zone.

    >>> moment_of("2026-05-04 02:30", ZoneInfo("Europe/Berlin")).isoformat()
    '2026-05-04T02:30:00+02:00'
    """
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        hint = "Such as 2026-05-04T02:30, in the trigger's zone, or 2026-05-04T00:30:00Z."
        raise InvalidInput(f"{option}: '{text}' is not a time.", hint=hint) from None
    return found if found.tzinfo else found.replace(tzinfo=zone)


def zone_of(client: Client, trigger_id: int) -> tuple[ZoneInfo, str]:
    """The zone that a trigger's times are told in, and its name; a deleted one has its history only."""
    try:
        known = client.schedule(trigger_id)
        return ZoneInfo(known.timezone or "UTC"), f" ({known.pipeline_uuid}/{known.name})"
    except (NotFound, LookupError, ValueError, OSError):  # a zone that is none is a reason of its own
        return ZoneInfo("UTC"), ""


def _say(reasons: Sequence[Reason]) -> None:
    for reason in reasons:
        typer.echo(f"  {reason.message}")
        if hint := reason.detail.get("hint"):
            typer.echo(f"    see: {hint}")


def _near(near: NearSlot, zone: ZoneInfo) -> str:
    run_id = f" {near.pipeline_run_id}" if near.pipeline_run_id else ""
    fate = f"{near.outcome}{run_id}{f', {near.reason}' if near.reason else ''}" if near.outcome else ""
    return "  ".join([_local(near.execution_date, zone), *filter(None, [fate, *near.notes])])


def _local(at: datetime, zone: ZoneInfo) -> str:
    return f"{at.astimezone(zone):%a %Y-%m-%d %H:%M:%S %z}"
