"""Many scenarios, one after the other, on SQLite and on a Postgres server."""

import asyncio
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from app.store.migrate import upgrade
from tests.failpoints.catalogue import Scenario, everything, play
from tests.postgres import Server

BACKENDS = ("sqlite", "postgresql")


def some(share: float, seed: int) -> list[Scenario]:
    """All scenarios, or that share of them."""
    found = everything()
    return found if share >= 1 else random.Random(seed).sample(found, max(1, round(share * len(found))))


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


def play_all(server: Server, chosen: Sequence[Scenario], backends: Sequence[str] = BACKENDS) -> list[str]:
    """Play scenarios on each of the databases; the names of those in which something was wrong."""
    began, bad = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="rw-failpoints-", ignore_cleanup_errors=True) as top:
        make = _makers(Path(top), server)
        for backend in backends:
            for number, scenario in enumerate(chosen):
                folder = Path(top) / f"{backend}-{number}"
                if not one(scenario, backend, make[backend](folder), folder):
                    bad.append(f"{backend} {scenario.name}")
    count = len(chosen) * len(backends)
    print(f"failpoints: {count} scenarios, {len(bad)} bad, {time.monotonic() - began:.0f} s", flush=True)
    return bad


def _makers(top: Path, server: Server) -> dict[str, Callable[[Path], str]]:
    """What makes a folder for a scenario, and a migrated database; its URL."""
    template = top / "template"
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

    return {"sqlite": on_sqlite, "postgresql": on_postgres}
