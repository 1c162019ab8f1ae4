from pathlib import Path

if "sensor" not in globals():
    from mage_ai.data_preparation.decorators import sensor


@sensor
def orders_arrived(*args, **kwargs) -> bool:
    """Asked again and again until it says True."""
    return (Path(kwargs["repo_path"]) / kwargs["file"]).exists()
