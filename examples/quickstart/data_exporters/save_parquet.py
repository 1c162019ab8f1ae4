import os
from pathlib import Path

if "data_exporter" not in globals():
    from mage_ai.data_preparation.decorators import data_exporter


@data_exporter
def save_parquet(revenue, *args, **kwargs):
    """output/daily_revenue.parquet; replaced as a whole, so that a reader never sees half a file."""
    folder = Path(kwargs["repo_path"]) / "output"
    folder.mkdir(exist_ok=True)
    part = folder / f".daily_revenue.{os.getpid()}"
    revenue.to_parquet(part, index=False)
    part.rename(folder / "daily_revenue.parquet")
    print(f"{len(revenue)} days written")
