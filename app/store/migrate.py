"""Schema versions: Alembic, imported only here and only when asked.

The scripts lie in `alembic/` of the checkout and in `app/migrations` of the wheel.
"""

import warnings
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Column, Connection, inspect, make_url, text

from app.errors import StartRefused, StoreUnavailable
from app.store import apart
from app.store.sqlite_file import require_sound, take_lock

#: The schema this program works with; a test holds it to the newest script.
HEAD = "0003"
#: Whoever changes a Postgres schema, or puts another in its place, holds the advisory lock of this number.
LOCK: Final = 727120


def scripts() -> Path:
    """The folder of the migration scripts."""
    packaged = Path(str(files("app"))) / "migrations"
    return packaged if packaged.is_dir() else Path(__file__).resolve().parents[2] / "alembic"


def current(tx: Connection) -> str | None:
    """The schema version of a database; None for an empty one."""
    if not inspect(tx).has_table("alembic_version"):
        return None
    return tx.execute(text("SELECT version_num FROM alembic_version")).scalar()


def check(tx: Connection) -> bool:
    """True when the schema is this program's, False when it must be upgraded.

    Raises StartRefused for a schema from a newer program.
    """
    version = current(tx)
    if version == HEAD:
        return True
    if version is not None:
        require_known(version)
    return False


def require_known(version: str) -> None:
    """Raise StartRefused for a schema that only a newer program knows."""
    if version > HEAD:
        raise StartRefused(
            f"The database has schema {version}, this program knows {HEAD}.",
            hint="Start the newer Runwright that upgraded it.",
        )


def upgrade(url: str) -> str | None:
    """Bring a database to this program's schema; the version it had. Safe to call from several nodes at once.

    Raises StartRefused for a newer schema, or a SQLite file that a service has open and that must be changed;
    StoreUnavailable when the database cannot be used.
    """
    if make_url(url).get_backend_name() != "sqlite":
        return apart.run(url, _locked_upgrade, write=True)
    path = Path(make_url(url).database or "")
    if path.is_file() and path.stat().st_size and _is_current(url, path):
        return HEAD
    with closing(take_lock(path)):  # a program of another version may be serving it
        require_sound(path)
        return apart.run(url, upgrade_here, write=True)


def _is_current(url: str, path: Path) -> bool:
    try:
        return apart.run(url, check)
    except StoreUnavailable:
        require_sound(path)  # damaged is another matter than locked
        raise


def upgrade_here(tx: Connection) -> str | None:
    """The same within a transaction of the caller, who lets nobody else at the database."""
    before = current(tx)
    if not check(tx):
        _run_alembic(tx)
    return before


def _locked_upgrade(tx: Connection) -> str | None:
    # Two replicas that start together: the second waits, then finds nothing to do.
    tx.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
    return upgrade_here(tx)


def _run_alembic(tx: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(scripts()).replace("%", "%%"))
    config.attributes["connection"] = tx
    command.upgrade(config, "head")


def differences(tx: Connection) -> list[Any]:
    """What the models say that the database does not have, and the other way round; empty when they agree."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from app.models.tables import metadata
    from app.store import sql  # noqa: F401  - it knows every module of tables

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="autogenerate skipping .* expression-based index")
        found = compare_metadata(MigrationContext.configure(tx), metadata)
    by_expression = {
        index.name
        for table in metadata.tables.values()
        for index in table.indexes
        if any(not isinstance(part, Column) for part in index.expressions)
    }
    return [entry for entry in found if not _is_told_otherwise(entry, by_expression)]


def _is_told_otherwise(entry: Any, by_expression: set[Any]) -> bool:
    """Whether a difference is about an index with `DESC` in it, which databases give back in other words."""
    return entry[0] in ("add_index", "remove_index") and entry[1].name in by_expression
