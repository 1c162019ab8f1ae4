"""A short version of `make simulate`."""

from pathlib import Path

import pytest

from app.store.opening import open_database
from tests.simulation.year import simulate


@pytest.mark.parametrize("seed", [1, 2])
async def test_the_ledger_of_a_disturbed_month_is_the_oracles(
    sqlite_url: str, tmp_path: Path, seed: int
) -> None:
    db = open_database(sqlite_url)
    await db.open()
    try:
        folder = tmp_path / "project"
        count = await simulate(db, folder, seed=seed, triggers=20, days=30, disturbances=60)
        assert count > 500
    finally:
        await db.close()
