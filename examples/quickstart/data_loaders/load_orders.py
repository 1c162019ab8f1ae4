from pathlib import Path

import pandas as pd

if "data_loader" not in globals():
    from mage_ai.data_preparation.decorators import data_loader
if "test" not in globals():
    from mage_ai.data_preparation.decorators import test


@data_loader
def load_orders(*args, **kwargs):
    """The orders as the till exported them, dirt and all."""
    file = Path(kwargs["repo_path"]) / "data" / "orders.csv"
    orders = pd.read_csv(file, parse_dates=["ordered_at"])
    print(f"{len(orders)} orders from {file.name}")
    return orders


@test
def there_are_orders(orders, *args):
    assert len(orders) > 1000, f"only {len(orders)} orders"


@test
def every_column_is_there(orders, *args):
    assert {"order_id", "ordered_at", "customer", "quantity", "unit_price", "currency"} <= set(orders.columns)
