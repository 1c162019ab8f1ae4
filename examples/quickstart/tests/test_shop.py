"""Tests of the example's own pipelines: `pytest examples/quickstart/tests`."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd

from runwright.testing import due, run_block, run_pipeline

PROJECT = Path(__file__).resolve().parent.parent
RATES = {"EUR": 1.0, "USD": 0.5}


def orders(*rows):
    names = ["order_id", "ordered_at", "customer", "quantity", "unit_price", "currency"]
    return pd.DataFrame(rows, columns=names)


MONDAY = pd.Timestamp("2026-11-23 09:00")
TWO_ORDERS = orders((1, MONDAY, "Ada", 2, 10.0, "EUR"), (2, MONDAY, "Bo", 1, 8.0, "USD"))


def test_orders_that_came_twice_are_dropped():
    twice = pd.concat([TWO_ORDERS, TWO_ORDERS])
    clean = run_block(PROJECT, "clean_orders", inputs={"load_orders": twice}).check()
    assert list(clean.output["order_id"]) == [1, 2]
    assert "2 of 4 orders dropped" in clean.log


def test_revenue_is_in_euros():
    table = run_block(PROJECT, "daily_revenue", inputs=[TWO_ORDERS, RATES]).check().output
    assert table.to_dict("records") == [{"day": "2026-11-23", "orders": 2, "revenue_eur": 24.0}]


def test_an_order_that_nobody_placed_does_not_reach_the_tables():
    run = run_pipeline(
        PROJECT,
        "shop",
        variables={"top": 1},
        replace={
            "load_orders": pd.concat([TWO_ORDERS, orders((3, MONDAY, None, 9, 9.0, "EUR"))]),
            "exchange_rates": RATES,
            "save_parquet": None,  # nothing is written
            "save_tables": lambda revenue, customers, **kwargs: len(customers),
        },
    ).check()
    assert run.output("daily_revenue")["orders"].sum() == 2
    assert list(run.output("top_customers")["customer"]) == ["Ada"]
    assert run.output("save_tables") == 1


def test_the_exchange_rates_are_asked_for_again_when_they_fail():
    run = run_pipeline(PROJECT, "shop", replace={"save_parquet": None, "save_tables": None}).check()
    assert [attempt.outcome for attempt in run["exchange_rates"].attempts] == ["failed", "completed"]
    assert run.took_s == 0.5  # its `delay`; nobody waited for it


def test_without_rates_nothing_is_saved():
    run = run_pipeline(PROJECT, "shop", replace={"exchange_rates": ConnectionError("no answer")})
    assert run.status == "failed"
    assert run["exchange_rates"].tries == 3
    assert run.statuses["save_tables"] == "upstream_failed"


def test_the_sensor_waits_for_the_note():
    answers = iter([False, False, True])
    run = run_pipeline(
        PROJECT,
        "wait_for_file",
        replace={"file_arrived": lambda **kwargs: next(answers), "read_file": "what it says"},
    ).check()
    assert timedelta(seconds=100) < timedelta(seconds=run.took_s) <= timedelta(minutes=2)


def test_the_shop_is_due_every_minute():
    noon = datetime(2026, 11, 23, 12, tzinfo=UTC)
    dates = due(PROJECT, "shop", "every_minute", between=(noon, noon + timedelta(minutes=3)))
    assert [f"{date:%H:%M}" for date in dates] == ["12:00", "12:01", "12:02"]
