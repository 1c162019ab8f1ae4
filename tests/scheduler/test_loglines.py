"""Lines on their way to the store."""

from app.executors.base import LogLine
from app.scheduler.loglines import CHUNK_LINES, RunLog


async def test_a_flood_asks_once_to_be_fetched() -> None:
    asked: list[int] = []
    log = RunLog(1, 0, lambda: asked.append(1))
    for _ in range(3):
        for number in range(20 * CHUNK_LINES):
            log.add("a", 1, 1, LogLine("stdout", "info", str(number)))
        (_chunk,), rows = log.take()
        assert len(rows) == 20 * CHUNK_LINES
        assert log.take(rows_too=False) == ((), ())
    assert len(asked) == 3
    log.close()
