import sqlite3
from contextlib import closing
from pathlib import Path

if "data_exporter" not in globals():
    from mage_ai.data_preparation.decorators import data_exporter


@data_exporter
def save_tables(revenue, customers, *args, **kwargs):
    """Tables daily_revenue and top_customers in output/shop.db."""
    folder = Path(kwargs["repo_path"]) / "output"
    folder.mkdir(exist_ok=True)
    with closing(sqlite3.connect(folder / "shop.db", timeout=30)) as database, database:
        revenue.to_sql("daily_revenue", database, if_exists="replace", index=False)
        customers.to_sql("top_customers", database, if_exists="replace", index=False)
    print(f"{len(revenue)} days and {len(customers)} customers written")
