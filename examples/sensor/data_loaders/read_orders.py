import csv
from pathlib import Path

if "data_loader" not in globals():
    from mage_ai.data_preparation.decorators import data_loader


@data_loader
def read_orders(*args, **kwargs):
    with (Path(kwargs["repo_path"]) / kwargs["file"]).open(newline="", encoding="utf-8") as file:
        orders = list(csv.DictReader(file))
    print(f"{len(orders)} orders")
    return orders
