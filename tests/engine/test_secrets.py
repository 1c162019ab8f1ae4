"""Secrets from the database to a block and nowhere else, with real workers, on both databases."""

import asyncio
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from app.errors import InvalidInput, StartRefused
from app.models.states import RunStatus
from app.scheduler.build import build_engine
from app.scheduler.engine import Engine, running
from app.scheduler.launch import LaunchRequest
from app.scheduler.secrets import SecretNotFound
from app.settings import Settings
from app.store import logs, runs, secrets
from app.store.db import Tx
from app.store.vault import FILE, SecretUnreadable, Vault, new_key
from tests.invariants import assert_hold

VALUE = "correct horse battery"

FILES = {
    "metadata.yaml": "name: vaults\nvariables: {dsn: \"postgres://me:{{ mage_secret_var('pw') }}@db\"}\n",
    "pipelines/asks/metadata.yaml": "blocks:\n- {uuid: ask, type: custom}\n- {uuid: look, type: custom}\n",
    "custom/ask.py": (
        "from mage_ai.data_preparation.shared.secrets import get_secret_value\n"
        "@custom\ndef f(*args, **kwargs):\n"
        "    value = get_secret_value('pw')\n"
        "    print('the value is', value)\n"
        "    kwargs['logger'].info('logged ' + value)\n"
        "    if kwargs.get('fail'):\n        raise ValueError('refused ' + value)\n"
        "    return len(value)\n"
    ),
    "custom/look.py": (
        "from mage_ai.data_preparation.variable_manager import get_global_variable\n"
        "@custom\ndef f(*args, **kwargs):\n"
        "    print('dsn', kwargs['dsn'], '__secrets__' in kwargs)\n"
        "    return [len(kwargs['dsn']), len(get_global_variable('asks', 'dsn'))]\n"
    ),
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        path = tmp_path / "vaults" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path / "vaults"


@asynccontextmanager
async def serving(project: Path, url: str, **given: Any) -> AsyncIterator[Engine]:
    home = project / ".runwright"
    home.mkdir(exist_ok=True)
    quick = {"workers": 2, "warm_workers": 1, "drain_s": 0.0, "kill_grace_s": 1.0}
    settings = Settings(**{"project": project, "home": home, "database_url": url, **quick, **given})
    async with running(build_engine(settings, scheduling=False)) as engine:
        yield engine
        await assert_hold(engine.db)


async def lines(engine: Engine, run_id: int) -> list[str]:
    return [line.text for line in await engine.db.read(logs.page, run_id, after=None, limit=200)]


def everything(tx: Tx) -> str:
    """Every text of every table."""
    if tx.dialect.name == "postgresql":
        query = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
    else:
        query = "SELECT name FROM sqlite_master WHERE type = 'table'"
    tables = [row[0] for row in tx.execute(text(query)).all()]
    return "\n".join(str(row) for name in tables for row in tx.execute(text(f'SELECT * FROM "{name}"')).all())


async def test_a_value_reaches_the_block_and_is_written_down_nowhere(
    project: Path, database_url: str
) -> None:
    async with serving(project, database_url) as engine:
        await engine.secrets.put("pw", VALUE)
        run = await engine.launch(LaunchRequest(pipeline_uuid="asks"))
        assert await engine.wait(run.id, 30)
        blocks = {b.block_uuid: b for b in await engine.db.read(runs.blocks, run.id)}
        assert [ref["value"] for ref in blocks["ask"].outputs] == [len(VALUE)]
        dsn = len(f"postgres://me:{VALUE}@db")
        assert [ref["value"] for ref in blocks["look"].outputs] == [dsn, dsn]
        failing = await engine.launch(LaunchRequest(pipeline_uuid="asks", variables={"fail": True}))
        assert await engine.wait(failing.id, 30)
        failed = {b.block_uuid: b for b in await engine.db.read(runs.blocks, failing.id)}["ask"]
        assert failed.error is not None and failed.error["message"] == "refused ***"
        told = await lines(engine, run.id) + await lines(engine, failing.id)
        assert {"the value is ***", "logged ***", "dsn postgres://me:***@db False"} <= set(told)
        found = await engine.db.read(everything)
        assert VALUE not in found and "<<secret pw>>" in found and "***" in found
    key = project / ".runwright" / FILE
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and VALUE not in key.read_text()


async def test_a_block_whose_secret_is_missing_fails_with_its_name(project: Path, database_url: str) -> None:
    async with serving(project, database_url) as engine:
        run = await engine.launch(LaunchRequest(pipeline_uuid="asks"))
        assert await engine.wait(run.id, 30)
        ended = await engine.db.read(runs.get, run.id)
        assert ended is not None and ended.status is RunStatus.FAILED
        errors = [b.error["message"] for b in await engine.db.read(runs.blocks, run.id) if b.error]
        assert any("there is no secret 'pw' (Set it: runwright secrets set pw)" in error for error in errors)


async def test_names_are_listed_in_pages_values_change_and_go(project: Path, database_url: str) -> None:
    async with serving(project, database_url) as engine:
        vault = engine.secrets
        made = await vault.put("b", "1")
        await vault.put("a.x-1", "2")
        changed = await vault.put("b", "three")
        assert changed.created_at == made.created_at and changed.updated_at >= made.updated_at
        assert await vault.value("b") == "three"
        assert [row.name for row in await vault.page(limit=1)] == ["a.x-1"]
        assert [row.name for row in await vault.page(limit=9, after="a.x-1")] == ["b"]
        await vault.remove("b")
        for call in (vault.remove, vault.value):
            with pytest.raises(SecretNotFound, match="there is no secret 'b'"):
                await call("b")
        for name, value in (("a b", "x"), ("", "x"), ("-a", "x"), ("é", "x"), ("a", ""), ("a", "x" * 65_537)):
            with pytest.raises(InvalidInput):
                await vault.put(name, value)


async def test_a_rotation_changes_the_key_and_keeps_the_values(project: Path, database_url: str) -> None:
    async with serving(project, database_url) as engine:
        await engine.secrets.put("a", "one")
        await engine.secrets.put("b", "two")
        file = project / ".runwright" / FILE
        before = file.read_text()
        sealed = await engine.db.read(secrets.sealed, "a")
        assert await engine.secrets.rotate() == 2
        assert len(file.read_text().split()) == 1 and file.read_text() != before
        assert await engine.db.read(secrets.sealed, "a") != sealed
        assert [await engine.secrets.value(name) for name in ("a", "b")] == ["one", "two"]
        file.write_text(before)
        with pytest.raises(SecretUnreadable, match="the secret 'a' was sealed with another key"):
            await engine.secrets.value("a")
        with pytest.raises(SecretUnreadable):
            await engine.secrets.rotate()


async def test_of_several_keys_the_first_seals_and_all_open(project: Path, database_url: str) -> None:
    old, new = new_key(), new_key()
    async with serving(project, database_url, secret_key=SecretStr(old)) as engine:
        await engine.secrets.put("a", "one")
    async with serving(project, database_url, secret_key=SecretStr(f"{new}, {old}")) as engine:
        assert await engine.secrets.value("a") == "one"
        assert await engine.secrets.rotate() == 1
    async with serving(project, database_url, secret_key=SecretStr(new)) as engine:
        assert await engine.secrets.value("a") == "one"
    assert not (project / ".runwright" / FILE).exists()


def test_what_is_no_key_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(StartRefused, match="RUNWRIGHT_SECRET_KEY holds something that is no key"):
        Vault(tmp_path, "nonsense")
    with pytest.raises(StartRefused):
        Vault(tmp_path, " , ")
    (tmp_path / FILE).write_text("nonsense\n")
    with pytest.raises(SecretUnreadable, match=r"the key file secret\.key in the home folder holds"):
        Vault(tmp_path).seal("x")


async def test_two_who_make_the_key_file_at_once_have_the_same_key(tmp_path: Path) -> None:
    sealed = await asyncio.gather(*(asyncio.to_thread(Vault(tmp_path).seal, "x") for _ in range(2)))
    assert {Vault(tmp_path).open("a", one) for one in sealed} == {"x"}
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
