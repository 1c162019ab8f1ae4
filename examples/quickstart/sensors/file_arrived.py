from pathlib import Path

if "sensor" not in globals():
    from mage_ai.data_preparation.decorators import sensor


@sensor
def file_arrived(*args, **kwargs):
    """Met as soon as output/note.txt exists."""
    return (Path(kwargs["repo_path"]) / "output" / "note.txt").exists()
