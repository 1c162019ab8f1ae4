"""The alarm clock at the end of a life: APScheduler would log every pass that ends with it, with a trace."""

import asyncio
import logging

import pytest

from app import clock
from app.scheduler.timers import Timers


@pytest.mark.parametrize("begins", [True, False])
async def test_a_pass_that_ends_with_the_timers_is_no_fault(
    begins: bool, caplog: pytest.LogCaptureFixture
) -> None:
    begun = asyncio.Event()

    async def work() -> None:
        begun.set()
        await asyncio.Event().wait()

    timers = Timers()
    timers.start()
    timers.at(clock.now(), "due", work)  # from here on its task is made in the next turn of the loop
    if begins:
        await begun.wait()
    with caplog.at_level(logging.ERROR):
        timers.stop()
        timers.stop()
        for _ in range(5):  # turns of the loop, for what a cancellation sets going
            await asyncio.sleep(0)
    assert begun.is_set() is begins
    assert caplog.records == []
