"""`runwright cron explain`: what an interval means, as execution dates."""

from zoneinfo import ZoneInfo

from app import clock
from app.cli.exits import Exit
from app.cli.tables import show
from app.scheduler import timetable


def explain_interval(interval: str, timezone: str, count: int, output: str) -> int:
    """Show the next execution dates, in the trigger's zone and in UTC."""
    table = timetable.parse(interval, timezone)
    rows: list[dict[str, object]] = []
    slot = table.after(clock.now())
    while slot is not None and len(rows) < count:
        local = slot.astimezone(ZoneInfo(timezone))
        rows.append({"local": f"{local:%a %Y-%m-%d %H:%M:%S %z}", "utc": f"{slot:%Y-%m-%dT%H:%M:%SZ}"})
        slot = table.after(slot)
    show(rows, output, empty=f"{interval} has no execution dates of its own")
    return Exit.OK
