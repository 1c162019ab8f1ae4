"""Databases for every test that asks: `sqlite_url`, `postgres_url`, or `database_url` for a test on both.

Each is new and migrated. Postgres starts at the first test that wants it and stops with the session. The
`blank_…` fixtures give databases without any table, for tests of the migrations themselves.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.postgres import Server, serving

# A loaded machine is slow, not wrong: no test of ours judges by the clock.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")

BACKENDS = ("sqlite", "postgresql")
#: Files and folders whose tests start processes or live through much.
LONG = frozenset(
    [
        "soak",
        "simulation",
        "hostile",
        "failpoints",
        "projects",
        "mage",
        "test_readme.py",
        "test_examples.py",
        "test_quickstart.py",
        "test_wheel.py",
        "test_run.py",
        "test_recovery.py",
        "test_children.py",
    ]
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put a long file after every four others: few of them meet, and none is left to be alone at the end."""
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    long = [file for file in files if not LONG.isdisjoint(file.parts)]
    short = [file for file in files if LONG.isdisjoint(file.parts)]
    order: list[Path] = []
    while short:
        order += [*long[:1], *short[:4]]
        del long[:1], short[:4]
    items[:] = [item for file in [*order, *long] for item in files[file]]


def _upgrade(url: str) -> None:
    # Imported here: a test that needs no database must not pay for alembic.
    from app.store.migrate import upgrade

    upgrade(url)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """The session's Postgres server."""
    with serving() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_template(postgres: Server) -> str:
    """Name of a migrated database that others are copied from; nobody may stay connected to it."""
    name = postgres.create()
    _upgrade(postgres.url(name))
    return name


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds one migrated SQLite database and whatever files belong to it."""
    folder = tmp_path_factory.mktemp("sqlite-template")
    _upgrade(f"sqlite:///{folder / 'runwright.db'}")
    return folder


@pytest.fixture
def postgres_url(postgres: Server, postgres_template: str) -> Iterator[str]:
    """DSN of a new, migrated Postgres database."""
    name = postgres.create(postgres_template)
    yield postgres.url(name)
    postgres.drop(name)


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """URL of a new, migrated SQLite file in `tmp_path`."""
    for file in sqlite_template.iterdir():
        shutil.copy(file, tmp_path / file.name)
    return f"sqlite:///{tmp_path / 'runwright.db'}"


@pytest.fixture
def blank_postgres_url(postgres: Server) -> Iterator[str]:
    """DSN of a new Postgres database without tables."""
    name = postgres.create()
    yield postgres.url(name)
    postgres.drop(name)


@pytest.fixture
def blank_sqlite_url(tmp_path: Path) -> str:
    """URL of a SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'runwright.db'}"


@pytest.fixture(params=BACKENDS)
def database_url(request: pytest.FixtureRequest) -> str:
    """A new, migrated database; the test runs once on each backend."""
    url: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
    return url


@pytest.fixture(params=BACKENDS)
def blank_database_url(request: pytest.FixtureRequest) -> str:
    """A database without tables; the test runs once on each backend."""
    name = "blank_sqlite_url" if request.param == "sqlite" else "blank_postgres_url"
    url: str = request.getfixturevalue(name)
    return url


@pytest.fixture
def quickstart(tmp_path: Path) -> Path:
    """A copy of the example project, without anything that runs of the original have left."""
    example = Path(__file__).resolve().parent.parent / "examples" / "quickstart"
    left = shutil.ignore_patterns(".runwright", "output", "__pycache__")
    return Path(shutil.copytree(example, tmp_path / "quickstart", ignore=left))
