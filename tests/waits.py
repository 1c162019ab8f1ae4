"""How tests wait for what no event tells of: asked again and again, with an end."""

import asyncio
from collections.abc import Callable
from inspect import isawaitable
from typing import Any


async def until(condition: Callable[[], Any], seconds: float = 10) -> Any:
    """Wait until a condition, async or not, holds, and return what it gave; fails when it does not in time."""
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if isawaitable(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.005)
