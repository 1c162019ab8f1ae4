"""`runwright init`: a small project in Mage's layout that runs as it is, on the standard library alone."""

from pathlib import Path
from textwrap import dedent
from typing import Final

import typer

from app.cli.exits import Exit
from app.errors import Conflict

_FILES: Final = {
    ".gitignore": ".runwright/\n",
    "metadata.yaml": """
        # The project. Every pipeline has a folder in pipelines/; its blocks are in the folders named after their type.
        project_type: standalone
        """,
    "pipelines/example/metadata.yaml": """
        name: example
        uuid: example
        type: python
        description: Loads words, counts them, says which are most frequent.
        variables:
          top: 3
        blocks:
        - uuid: load_words
          type: data_loader
          language: python
          upstream_blocks: []
          downstream_blocks: [count_words]
        - uuid: count_words
          type: transformer
          language: python
          upstream_blocks: [load_words]
          downstream_blocks: [report]
        - uuid: report
          type: data_exporter
          language: python
          upstream_blocks: [count_words]
          downstream_blocks: []
        """,
    "pipelines/example/triggers.yaml": """
        triggers:
        - name: daily
          schedule_type: time
          schedule_interval: '@daily'
          status: inactive # active: the pipeline runs every day at midnight, UTC
          start_time: 2026-01-01 00:00:00
        """,
    "data_loaders/load_words.py": """
        if "data_loader" not in globals():
            from mage_ai.data_preparation.decorators import data_loader
        if "test" not in globals():
            from mage_ai.data_preparation.decorators import test


        @data_loader
        def load_words(*args, **kwargs):
            print("for", kwargs["execution_date"])
            return "the quick brown fox jumps over the lazy dog and the cat".split()


        @test
        def there_are_words(words, *args):
            assert words, "there are no words"
        """,
    "transformers/count_words.py": """
        from collections import Counter

        if "transformer" not in globals():
            from mage_ai.data_preparation.decorators import transformer


        @transformer
        def count_words(words, *args, **kwargs):
            return dict(Counter(words).most_common(kwargs["top"]))
        """,
    "data_exporters/report.py": """
        if "data_exporter" not in globals():
            from mage_ai.data_preparation.decorators import data_exporter


        @data_exporter
        def report(counts, *args, **kwargs):
            for word, count in counts.items():
                print(f"{word}: {count}")
        """,
}


def make_project(folder: Path) -> int:
    """Write the project into a folder that does not exist or is empty. Raises Conflict for any other."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Conflict(f"'{folder}' exists and is not an empty folder.", hint="Name another folder.")
    for name, text in _FILES.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text).lstrip("\n"), encoding="utf-8")
    typer.echo(f"{folder} is a project with one pipeline. Next:")
    typer.echo(f"  runwright run {folder} example")
    typer.echo(f"  runwright start {folder}")
    return Exit.OK
