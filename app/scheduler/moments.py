"""The moments of a running run at which something is due though nothing of it happens: its SLA, its deadline."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from typing import Literal

from app import clock

What = Literal["sla", "deadline"]


async def watch(
    moments: Iterable[tuple[datetime, What]],
    over: asyncio.Event,
    passed: Callable[[What, datetime], Awaitable[None]],
) -> None:
    """Call `passed` at each moment, until the run is over."""
    for when, what in moments:
        try:
            async with asyncio.timeout(max(0.0, (when - clock.now()) / timedelta(seconds=1))):
                await over.wait()
                return
        except TimeoutError:
            await passed(what, when)
