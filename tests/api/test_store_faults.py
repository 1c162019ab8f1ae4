"""What a caller is told when Postgres fails after the effect was committed: never that nothing was changed."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from app.store.connecting import connect_raw
from tests.api.conftest import app_on, serving
from tests.api.project import make_project


@pytest.fixture
async def api(postgres_url: str, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    project = await asyncio.to_thread(make_project, tmp_path / "project")
    async with serving(app_on(project, database_url=postgres_url)) as client:
        yield client


async def execute(url: str, *statements: str) -> None:
    connection = await connect_raw(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def test_an_answer_that_cannot_be_kept_is_given_and_its_effect_is_had_once(
    api: httpx.AsyncClient, postgres_url: str
) -> None:
    await execute(
        postgres_url,
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'no space left' USING errcode = '53100'; END $$",
        "CREATE TRIGGER full_disk BEFORE UPDATE ON idempotency_key EXECUTE FUNCTION full_disk()",
    )
    path = "/api/v1/pipelines/hello/pipeline_runs"
    first = await api.post(path, headers={"Idempotency-Key": "k1"})
    assert first.status_code == 201, first.text
    again = await api.post(path, headers={"Idempotency-Key": "k1"})
    assert (again.status_code, again.json()["id"]) == (201, first.json()["id"])


async def test_a_full_disk_is_a_503_and_then_the_service_goes_on(
    api: httpx.AsyncClient, postgres_url: str
) -> None:
    await execute(
        postgres_url,
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'no space left' USING errcode = '53100'; END $$",
        "CREATE TRIGGER full_disk BEFORE INSERT ON pipeline_run EXECUTE FUNCTION full_disk()",
    )
    path = "/api/v1/pipelines/hello/pipeline_runs"
    refused = await api.post(path)
    assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable")
    assert refused.headers["retry-after"]
    await execute(postgres_url, "DROP TRIGGER full_disk ON pipeline_run")
    made = await api.post(path, headers={"Prefer": "wait=20"})
    assert (made.status_code, made.json()["status"]) == (201, "completed")
