"""`runwright doctor`: does this machine have what the project needs? Each check is a sentence and a verdict."""

import asyncio
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

from app.auth import require_safe_bind
from app.cli.exits import Exit
from app.cli.logs import configure_logging
from app.cli.project import open_project, prepare_home
from app.cli.tables import show
from app.errors import RunwrightError
from app.executors.pool import WorkerPool
from app.pipelines.project import load_project
from app.server import PortTaken, listen
from app.settings import Settings, environment
from app.store import about, apart, diagnosis
from app.store.db import is_there
from app.store.diagnosis import Finding
from app.store.opening import sqlite_path

_PYTHON_NEEDED = (3, 8)


@dataclass(frozen=True, slots=True)
class _Check:
    """`run` gives a sentence, or findings of its own."""

    name: str
    run: Callable[[Settings], str | list[Finding]]


def examine(folder: Path, output: str, database_url: str | None = None) -> int:
    """Run every check, show what each found; the exit code says whether none failed."""
    configure_logging("error")
    _, settings = open_project(folder, database_url=database_url)
    rows = [finding for check in _checks() for finding in _findings(check, settings)]
    show([asdict(row) for row in rows], output)
    return Exit.FAILED if any(row.status == "failed" for row in rows) else Exit.OK


def _findings(check: _Check, settings: Settings) -> list[Finding]:
    try:
        found = check.run(settings)
    except RunwrightError as error:
        return [Finding(check.name, "failed", f"{error.detail} {error.hint}".strip())]
    except OSError as error:
        return [Finding(check.name, "failed", f"{error.filename or ''} {error.strerror or error}".strip())]
    return found if isinstance(found, list) else [Finding(check.name, "ok", found)]


def _checks() -> Iterator[_Check]:
    yield _Check("python", _python)
    yield _Check("sqlite", _sqlite)
    yield _Check("project", _project)
    yield _Check("home", _home)
    yield _Check("database", _database)
    yield _Check("store", _store)
    yield _Check("nodes", _nodes)
    yield _Check("access", _access)
    yield _Check("port", _port)
    yield _Check("interpreter", _interpreter)
    yield _Check("workers", _workers)


def _python(settings: Settings) -> str:
    return f"{platform.python_version()} at {sys.executable}"


def _sqlite(settings: Settings) -> str:
    return about.sqlite_version()


def _project(settings: Settings) -> str:
    """That every folder of it can be read by who runs this, since the service will be the same."""
    for path in (settings.project, *settings.project.iterdir()):
        if path.is_dir() and not os.access(path, os.R_OK | os.X_OK):
            raise RunwrightError(
                f"{path} cannot be read.", hint="Give this user the right to, or start as its owner."
            )
    return str(settings.project)


def _home(settings: Settings) -> str:
    prepare_home(settings.home)
    with NamedTemporaryFile(dir=settings.home, prefix="doctor-"):
        return f"{settings.home} is writable"


def _database(settings: Settings) -> str:
    shown = about.shown(settings.store_url)
    if not is_there(settings.store_url):
        return f"{shown} will be made at the first start"
    return f"{shown}, {asyncio.run(about.schema(settings.store_url))}"


def _store(settings: Settings) -> list[Finding]:
    if (path := sqlite_path(settings.store_url)) is not None:
        return diagnosis.of_sqlite(path, network_allowed=settings.sqlite_on_network)
    return diagnosis.of_postgres(settings.store_url)


def _nodes(settings: Settings) -> list[Finding]:
    if not is_there(settings.store_url):
        return []
    return [apart.run(settings.store_url, diagnosis.nodes_and_leases)]


def _access(settings: Settings) -> str:
    require_safe_bind(settings)
    return f"serves {settings.host}" + (" with an admin key" if settings.admin_key else ", no key needed")


def _port(settings: Settings) -> str:
    try:
        listen(settings.host, settings.port).close()
    except PortTaken:
        if not _is_our_service(settings):
            raise
        return f"{settings.port} is taken, by this project's own service"
    return f"{settings.port} is free"


def _is_our_service(settings: Settings) -> bool:
    try:
        told = json.loads((settings.home / "service.json").read_text(encoding="utf-8"))
        os.kill(told["pid"], 0)  # what a killed service left behind tells nothing
    except (OSError, ValueError):
        return False
    return str(told["url"]).endswith(f":{settings.port}")


def _interpreter(settings: Settings) -> str:
    python = _python_of_blocks(settings)
    asked = "import platform; print(platform.python_version())"
    try:
        done = subprocess.run([python, "-c", asked], capture_output=True, text=True, timeout=15)
    except subprocess.TimeoutExpired:
        raise RunwrightError(f"{python} did not answer within 15 seconds.") from None
    version = done.stdout.strip()
    if done.returncode or not version:
        raise RunwrightError(f"{python} does not run: {done.stderr.strip()[-200:]}")
    if tuple(map(int, version.split(".")[:2])) < _PYTHON_NEEDED:
        raise RunwrightError(f"{python} is Python {version}; blocks need 3.8 or newer.")
    return f"blocks run under Python {version}, {python}"


def _python_of_blocks(settings: Settings) -> str:
    return settings.python or load_project(settings.project, environment()).python or sys.executable


def _workers(settings: Settings) -> str:
    asyncio.run(_start_workers(settings))
    return "the warden starts and stops them"


async def _start_workers(settings: Settings) -> None:
    pool = WorkerPool(
        node_id="doctor",
        project=settings.project,
        workers=1,
        warm=1,
        python=_python_of_blocks(settings),
        kill_grace_s=settings.kill_grace_s,
    )
    try:
        async with asyncio.timeout(15):
            await pool.start()
            (await pool.acquire()).release()
    except TimeoutError:
        raise RunwrightError("No worker process was ready within 15 seconds.") from None
    finally:
        await pool.stop()
