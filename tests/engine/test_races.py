"""Real processes that race for the same rows of one Postgres."""

from pathlib import Path

from tests.soak.ticks import Ticks


def test_many_processes_that_tick_at_once_decide_every_slot_once(
    tmp_path: Path, blank_postgres_url: str
) -> None:
    ticks = Ticks(tmp_path, blank_postgres_url, seed=5, racers=4, triggers=5, slots=8)
    assert ticks.run() == []
    assert len(ticks.shares) > 1, "else nobody raced"
    assert ticks.rolled_back > 0
