"""Schema versions: Alembic, imported only here and only when asked.

The scripts lie in `alembic/` of the checkout and in `app/migrations` of the wheel.
"""

import warnings
from importlib.resources import files
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Connection, Engine, create_engine, inspect, make_url, text
from sqlalchemy.pool import NullPool

from app.errors import StartRefused

#: The schema this program works with; a test holds it to the newest script.
HEAD = "0002"


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
    if version is not None and version > HEAD:
        raise StartRefused(
            f"The database has schema {version}, this program knows {HEAD}.",
            hint="Start the newer Runwright that upgraded it.",
        )
    return False


def upgrade(url: str) -> None:
    """Bring a database to this program's schema; does nothing when it is there. Safe to call from several nodes."""
    engine = _sync_engine(url) if make_url(url).get_backend_name() == "sqlite" else None
    if engine is None:
        import asyncio

        asyncio.run(_upgrade_postgres(url))
        return
    with engine.connect() as tx:
        if not check(tx):
            _run_alembic(tx)
            tx.commit()
    engine.dispose()


def _sync_engine(url: str) -> Engine:
    path = make_url(url).database
    if path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, poolclass=NullPool)
    return engine


async def _upgrade_postgres(url: str) -> None:
    from sqlalchemy.ext.asyncio import create_async_engine

    from app.store.postgres import first_connection

    engine = create_async_engine(make_url(url).set(drivername="postgresql+asyncpg"), poolclass=NullPool)
    try:
        async with first_connection(engine) as connection, connection.begin():
            await connection.run_sync(_locked_upgrade)
    finally:
        await engine.dispose()


def _locked_upgrade(tx: Connection) -> None:
    # Two replicas that start together: the second waits, then finds nothing to do.
    tx.execute(text("SELECT pg_advisory_xact_lock(727120)"))
    if not check(tx):
        _run_alembic(tx)


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

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="autogenerate skipping .* expression-based index")
        found = compare_metadata(MigrationContext.configure(tx), metadata)
    return [entry for entry in found if not _of_expression(entry)]


def _of_expression(entry: Any) -> bool:
    """Whether a difference is about an index with `DESC` in it, which databases give back in other words."""
    if entry[0] not in ("add_index", "remove_index"):
        return False
    return any(not isinstance(part, Column) for part in entry[1].expressions)
