"""What the doctor finds in a database, and what it makes of it."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from app import clock
from app.store import apart, checks, diagnosis, migrate, sqlite_file
from app.store.diagnosis import Finding, judge_clock, judge_connections, judge_durability
from app.store.opening import sqlite_path
from app.store.postgres import CONNECTIONS
from app.store.sql import RUN, VERSION
from tests.store.conftest import Bench, chain

GOOD = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "synchronous_standby_names": ""}


def by_name(found: list[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in found}


def test_a_sound_postgres_is_found_sound(postgres_url: str) -> None:
    found = by_name(diagnosis.of_postgres(postgres_url))
    assert set(found) == {"server", "clock", "durability", "connections", "notifications", "pooler"}
    assert [f for f in found.values() if f.status != "ok"] == []
    assert "nodes fit" in found["connections"].detail


def test_a_server_that_answers_too_early_is_found(postgres_url: str) -> None:
    apart.run(
        postgres_url,
        lambda tx: tx.execute(text(f"ALTER DATABASE {tx.engine.url.database} SET synchronous_commit = off")),
        write=True,
    )
    found = by_name(diagnosis.of_postgres(postgres_url))
    assert found["durability"].status == "failed"
    assert "synchronous_commit=off" in found["durability"].detail


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, "ok"),
        ({"fsync": "off"}, "failed"),
        ({"full_page_writes": "off"}, "failed"),
        ({"synchronous_commit": "off"}, "failed"),
        ({"synchronous_commit": "local"}, "ok"),
        ({"synchronous_commit": "local", "synchronous_standby_names": "a"}, "warning"),
    ],
)
def test_settings_that_lose_commits(change: dict[str, str], status: str) -> None:
    assert judge_durability({**GOOD, **change}).status == status


def test_room_for_nodes() -> None:
    one = CONNECTIONS
    assert judge_connections(one - 1, 0, 0).status == "failed"
    assert judge_connections(3 * one, 0, one).status == "ok"
    assert (
        judge_connections(3 * one, one, 2 * one).status == "warning"
    )  # no room for the next, as in a rolling upgrade
    assert (judge_clock(2).status, judge_clock(-0.5).status) == ("warning", "ok")


def test_a_sqlite_file_and_its_place(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sqlite_path(sqlite_url)
    assert path is not None
    found = by_name(diagnosis.of_sqlite(path, network_allowed=False))
    assert set(found) == {"file system", "free space", "integrity", "journal mode"}
    assert found["integrity"].status == "ok"
    mounts = tmp_path / "mountinfo"
    mounts.write_text("22 1 0:40 / / rw shared:1 - nfs4 server:/ rw\n")
    monkeypatch.setattr(sqlite_file, "MOUNTS", mounts)
    assert by_name(diagnosis.of_sqlite(path, network_allowed=False))["file system"].status == "failed"
    assert by_name(diagnosis.of_sqlite(path, network_allowed=True))["file system"].status == "warning"
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * 4096)
    assert by_name(diagnosis.of_sqlite(path, network_allowed=False))["integrity"].status == "failed"


async def test_nodes_and_live_runs_are_counted(bench: Bench) -> None:
    await bench.running()
    found = await bench.db.read(diagnosis.nodes_and_leases)
    assert found == Finding("nodes", "ok", "alive: 1, live runs: 1")


async def test_whether_a_lease_is_over_is_said_by_the_clock_that_gave_it(bench: Bench) -> None:
    ahead = clock.now() + timedelta(days=1)
    clock.use(lambda: ahead)
    try:
        found = await bench.db.read(diagnosis.nodes_and_leases)
    finally:
        clock.use(None)
    assert found == Finding("nodes", "ok", "alive: 1, live runs: 0")


async def test_a_database_is_examined(bench: Bench) -> None:
    await bench.running()
    found = await bench.db.read(checks.examine, deep=True)
    assert [(v.check, v.status) for v in found] == [
        ("schema", "ok"),
        ("integrity", "ok"),
        ("references", "ok"),
        ("invariants", "ok"),
    ]


async def test_rows_that_do_not_fit_are_found(database_url: str) -> None:
    found = await asyncio.to_thread(apart.run, database_url, _break, write=True)
    (verdict,) = [v for v in found if v.status == "failed"]
    assert verdict.check == "invariants" and "I3" in verdict.detail  # a run of a tick that no slot tells of


def _break(tx: Connection) -> list[checks.Verdict]:
    pipeline, now = chain(), clock.now()
    version = {
        "hash": pipeline.hash,
        "pipeline_uuid": "etl",
        "definition": pipeline.definition,
        "created_at": now,
    }
    tx.execute(VERSION.insert().values(**version))
    run = {
        "id": 1,
        "pipeline_uuid": "etl",
        "pipeline_hash": pipeline.hash,
        "cause": "tick",
        "execution_date": now,
    }
    tx.execute(RUN.insert().values(**run, status="initial", created_at=now, epoch=0, **_EMPTY))
    return checks.examine(tx, deep=True)


_EMPTY: dict[str, Any] = {"variables": {}, "event_variables": {}, "options": {}, "metrics": {}}


async def test_an_older_schema_is_no_reason_to_look_further(blank_database_url: str) -> None:
    await asyncio.to_thread(migrate.upgrade, blank_database_url)
    await asyncio.to_thread(
        apart.run,
        blank_database_url,
        lambda tx: tx.execute(text("UPDATE alembic_version SET version_num = '0001'")),
        write=True,
    )
    found = await asyncio.to_thread(apart.run, blank_database_url, lambda tx: checks.examine(tx, deep=True))
    assert [(v.check, v.status) for v in found] == [("schema", "failed"), ("integrity", "ok")]
    assert "db upgrade" in found[0].detail
