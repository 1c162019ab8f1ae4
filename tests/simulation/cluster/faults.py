"""What happens to a simulated cluster besides bad answers of its database."""

import asyncio
from datetime import timedelta
from typing import Any, Final

#: Between two of them, in seconds on average.
EVERY_S: Final = 2.2
#: A process that is down comes up again within so many seconds.
RESTART_S: Final = (0.2, 4.0)
_KINDS: Final = ("kill", "kill", "pause", "pause", "pause", "stop", "cut_off", "away", "deaf", "clock")


async def strike(world: Any) -> None:
    """One fault after the other."""
    dice = world.dice
    while True:
        await asyncio.sleep(dice.expovariate(1 / EVERY_S))
        well = [process for process in world.processes if process.is_well]
        if not well:
            continue
        process = dice.choice(well)
        world.faults += 1
        match dice.choice(_KINDS):
            case "kill":
                process.kill()
            case "pause":
                process.pause(dice.choice((0.3, 1.5, 5.0, 8.0)))
            case "stop":
                process.stop()
            case "cut_off":
                seconds = dice.choice((0.5, 2.0, 6.0))
                world.note(f"{process}: cannot reach the database for {seconds} s")
                world.server.trouble.cut_off[process] = world.loop.time() + seconds
            case "away":
                seconds = dice.choice((0.3, 1.0, 5.0))
                world.note(f"the database is away for {seconds} s")
                world.server.trouble.away_until = world.loop.time() + seconds
            case "deaf":
                for voice in [voice for voice in world.air if voice._process is process]:
                    voice.break_for(dice.uniform(0.5, 5.0))
            case "clock":
                by = dice.choice((-3.0, -0.5, 2.0, 30.0))
                world.note(f"the database's clock is set by {by:+g} s")
                world.clocks.database_is_off += timedelta(seconds=by)
