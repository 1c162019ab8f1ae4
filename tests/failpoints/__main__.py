"""Every failpoint with everything that can happen there, on both databases: `python -m tests.failpoints [word …]`.

Only scenarios that have one of the words in their name, or `sqlite`, `postgresql`. Exit 1 when one was bad.
"""

import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from app.store.migrate import upgrade
from tests.failpoints.catalogue import Scenario, everything, play
from tests.postgres import serving

BACKENDS = ("sqlite", "postgresql")


def one(scenario: Scenario, backend: str, url: str, folder: Path) -> bool:
    """Play a scenario; whether all was well."""
    began = time.monotonic()
    try:
        found = asyncio.run(play(scenario, folder / "scene", url))
    except Exception as error:  # the next one shall have its turn
        found = [f"{type(error).__name__}: {error}"]
    if found:
        print(f"!! {backend} {scenario.name} ({time.monotonic() - began:.1f} s)", flush=True)
        for what in found:
            print(f"   {what}", flush=True)
    return not found


def main(words: list[str]) -> int:
    backends = [b for b in BACKENDS if b in words] or list(BACKENDS)
    words = [word for word in words if word not in BACKENDS]
    chosen = [s for s in everything() if not words or any(word in s.name for word in words)]
    began = time.monotonic()
    with (
        serving() as server,
        tempfile.TemporaryDirectory(prefix="rw-failpoints-", ignore_cleanup_errors=True) as top,
    ):
        template = Path(top) / "template"
        template.mkdir()
        upgrade(f"sqlite:///{template / 'runwright.db'}")
        postgres = server.create()
        upgrade(server.url(postgres))

        def on_sqlite(folder: Path) -> str:
            shutil.copytree(template, folder)
            return f"sqlite:///{folder / 'runwright.db'}"

        def on_postgres(folder: Path) -> str:
            folder.mkdir()
            return server.url(server.create(postgres))

        make: dict[str, Callable[[Path], str]] = {"sqlite": on_sqlite, "postgresql": on_postgres}
        bad = []
        for backend in backends:
            for number, scenario in enumerate(chosen):
                folder = Path(top) / f"{backend}-{number}"
                if not one(scenario, backend, make[backend](folder), folder):
                    bad.append(scenario)
        count = len(chosen) * len(backends)
        print(f"failpoints: {count} scenarios, {len(bad)} bad, {time.monotonic() - began:.0f} s", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
