"""The example does what its README section says, by the command line that a newcomer types."""

import os
import runpy
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest


def runwright(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).parent / "runwright", *arguments]
    environment = {**os.environ, "NO_COLOR": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def test_the_data_is_what_the_script_makes(quickstart: Path) -> None:
    shipped = quickstart / "data" / "orders.csv"
    before = shipped.read_bytes()
    shipped.unlink()
    runpy.run_path(str(quickstart / "make_data.py"), run_name="__main__")
    assert shipped.read_bytes() == before


def test_every_pipeline_is_valid(quickstart: Path) -> None:
    done = runwright("validate", quickstart)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_shop_writes_its_parquet_file_and_its_tables(quickstart: Path) -> None:
    done = runwright("run", quickstart, "shop", "--runtime-vars", '{"top": 3}')
    assert done.returncode == 0, done.stdout + done.stderr
    revenue = pd.read_parquet(quickstart / "output" / "daily_revenue.parquet")
    assert len(revenue) == 90
    with closing(sqlite3.connect(quickstart / "output" / "shop.db")) as database:
        days = database.execute("SELECT count(*), sum(orders) FROM daily_revenue").fetchone()
        customers = database.execute("SELECT customer FROM top_customers").fetchall()
    assert days == (90, int(revenue["orders"].sum()))
    assert len(customers) == 3
    assert "the exchange rate service did not answer" in done.stdout  # the first attempt
    assert "answered at the second attempt" in done.stdout


def test_a_failing_block_is_named_with_exception_and_line(quickstart: Path) -> None:
    done = runwright("run", quickstart, "hello", "--runtime-vars", '{"name": ""}')
    assert done.returncode == 1
    line = next(
        number
        for number, text in enumerate((quickstart / "custom/greet.py").read_text().splitlines(), 1)
        if "raise ValueError" in text
    )
    for word in ("greet", "ValueError", f"custom/greet.py:{line}"):
        assert word in done.stdout + done.stderr, word


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["hello", "--runtime-vars", '{"name": "Ada"}'], "HELLO, ADA!"),
        (["hello", "--block-uuid", "greet"], "greeting world"),
        (["wait_for_file", "--skip-sensors"], "no note today"),
    ],
)
def test_the_command_lines_of_mage_work(quickstart: Path, arguments: list[str], said: str) -> None:
    done = runwright("run", quickstart, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert said in done.stdout
