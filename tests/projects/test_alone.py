"""The same projects without a service: by the command line, and by `run_pipeline` in a test."""

import asyncio
from pathlib import Path

import pytest

from app.cli.project import open_project
from app.store import logs, runs
from app.store.opening import open_database
from app.testing import run_pipeline
from tests.cli.conftest import Invoke, invoke
from tests.projects.conftest import copied
from tests.projects.expected import PROJECT, Expected, Found, all_expected, going, of_report, of_rows

__all__ = ["invoke"]  # a fixture

#: What people use of Mage: each is in the `covers` of a pipeline.
COVERED = """
    allow_blocks_to_fail; argument count; argument order; arguments; async; async dynamic;
    broken callback; built-in variables; callback per child; callbacks; callbacks of cancel;
    callbacks of failure; chart; check_status; check_status raises; child fails; children of children;
    condition per child; conditionals; DataFrame rows; decorators; dynamic; dynamic block fails;
    dynamic child that is dynamic; dynamic generator; dynamic metadata; dynamic version 2;
    dynamic_blocks fail; dynamic_blocks limit; executor_type; failure; file_path; file_source.path;
    first function; frames; generators; legacy callbacks; logger; markdown; no function; outputs;
    parent list; preprocesser; preset names; project imports; reduce_output; replicas; retries;
    retries of children; retries spent; rules of children; scratchpad; sensor children are stopped;
    sensor per child; sensors; shared files; stdout; test; test fails; timeouts; trigger rules;
    trigger_pipeline; trigger_pipeline fails; two dynamic upstreams; types; upstream_blocks of items;
    variables; zero items
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(tmp_path_factory.mktemp("projects"))


@going("cli")
def test_by_the_command_line(one: Expected, project: Path, invoke: Invoke) -> None:
    import json

    given = json.dumps(one.keys.get("variables", {}))
    code, out, errors = invoke("run", project, one.uuid, "--runtime-vars", given)
    assert code == (0 if one.keys["status"] == "completed" else 1), out + errors
    one.check(asyncio.run(_newest(project, one.uuid)), "cli")


async def _newest(project: Path, pipeline_uuid: str) -> Found:
    """The newest run in the command line's own database."""
    home = open_project(project)[1].home / "cli"
    db = open_database(f"sqlite:///{home / 'runwright.db'}")
    await db.open()
    try:
        run = (await db.read(runs.page, limit=1, pipeline_uuid=[pipeline_uuid]))[0]
        lines = await db.read(logs.page, run.id, after=None, limit=1000)
        return of_rows(run, await db.read(runs.blocks, run.id), lines, home / "artifacts")
    finally:
        await db.close()


@going("test")
def test_by_run_pipeline(one: Expected) -> None:
    keys = one.keys
    report = run_pipeline(
        PROJECT,
        one.uuid,
        variables=keys.get("variables"),
        trigger=keys.get("trigger"),
        **keys.get("testing", {}),
    )
    one.check(of_report(report), "test")


def test_each_rule_of_blocks_has_its_pipeline() -> None:
    assert {what for one in all_expected() for what in one.keys["covers"]} == set(
        map(str.strip, COVERED.split(";"))
    )
