"""Makes data/orders.csv: 3,000 shop orders, always the same ones, with the dirt that real exports have.

python make_data.py
"""

import csv
import random
from datetime import datetime, timedelta
from pathlib import Path

COLUMNS = ("order_id", "ordered_at", "customer", "product", "quantity", "unit_price", "currency")
PRODUCTS = {"notebook": 4.5, "fountain pen": 32.0, "ink": 9.9, "desk lamp": 58.0, "paper, 500 sheets": 7.25}
CURRENCIES = ("EUR", "EUR", "EUR", "USD", "GBP")
FIRST_DAY = datetime(2025, 1, 1)  # noqa: DTZ001 - the shop's till writes local times without a zone
ROWS = 3000


def orders(seed: int = 20250101) -> list[tuple[object, ...]]:
    """The rows, in the order of the till; about one in fifty has a fault."""
    dice = random.Random(seed)
    customers = [f"customer {number:03}" for number in range(1, 121)]
    rows: list[tuple[object, ...]] = []
    for order_id in range(1, ROWS + 1):
        when = FIRST_DAY + timedelta(days=dice.randrange(90), minutes=dice.randrange(8 * 60, 20 * 60))
        product = dice.choice(list(PRODUCTS))
        customer = "" if dice.random() < 0.01 else dice.choice(customers)
        quantity = -1 if dice.random() < 0.005 else dice.randint(1, 6)
        bought = (customer, product, quantity, PRODUCTS[product], dice.choice(CURRENCIES))
        row = (order_id, f"{when:%Y-%m-%d %H:%M}", *bought)
        rows.append(row)
        if dice.random() < 0.005:
            rows.append(row)  # the till sent it twice
    return rows


def main() -> None:
    target = Path(__file__).parent / "data" / "orders.csv"
    target.parent.mkdir(exist_ok=True)
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(orders())


if __name__ == "__main__":
    main()
