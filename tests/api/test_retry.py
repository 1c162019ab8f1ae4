"""Retrying a finished run, asking twice for the same thing, and looking at outputs."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.conftest import app_on, serving
from tests.invariants import assert_hold

V1 = "/api/v1"

FILES = {
    "metadata.yaml": "name: again\n",
    "pipelines/etl/metadata.yaml": (
        "blocks:\n"
        "- {uuid: load, type: custom, upstream_blocks: []}\n"
        "- {uuid: check, type: custom, upstream_blocks: [load]}\n"
        "- {uuid: side, type: custom, upstream_blocks: []}\n"
        "- {uuid: save, type: custom, upstream_blocks: [check]}\n"
    ),
    "custom/load.py": "@custom\ndef f(*args, **kwargs):\n    return kwargs.get('n', 1)\n",
    "custom/check.py": (
        "@custom\ndef f(value, *args, **kwargs):\n"
        "    if kwargs.get('bad'):\n        raise ValueError('bad')\n    return value + 1\n"
    ),
    "custom/side.py": "@custom\ndef f(*args, **kwargs):\n    return 'side'\n",
    "custom/save.py": "@custom\ndef f(value, *args, **kwargs):\n    return {'saved': value}\n",
    "pipelines/frame/metadata.yaml": "blocks:\n- {uuid: table, type: custom, upstream_blocks: []}\n",
    "custom/table.py": (
        "import pandas as pd\n@custom\ndef f(*args, **kwargs):\n"
        "    return pd.DataFrame({'id': range(9), 'name': ['x' * 200] * 9})\n"
    ),
    "pipelines/slow/metadata.yaml": "blocks:\n- {uuid: nap, type: custom, upstream_blocks: []}\n",
    "custom/nap.py": "import time\n@custom\ndef f(*args, **kwargs):\n    time.sleep(30)\n",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "again" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "again"


async def launch(api: httpx.AsyncClient, uuid: str, wait: int = 30, **body: Any) -> dict[str, Any]:
    answer = await api.post(
        f"{V1}/pipelines/{uuid}/pipeline_runs", json=body, headers={"Prefer": f"wait={wait}"}
    )
    assert answer.status_code in (201, 202), answer.text
    return dict(answer.json())


async def retry(api: httpx.AsyncClient, run_id: int, wait: int = 30, **body: Any) -> httpx.Response:
    return await api.post(f"{V1}/pipeline_runs/{run_id}/retry", json=body, headers={"Prefer": f"wait={wait}"})


def blocks(run: dict[str, Any]) -> dict[str, tuple[str, int]]:
    return {b["block_uuid"]: (b["status"], b["attempt"]) for b in run["block_runs"]}


async def test_a_retry_carries_over_what_is_finished_and_runs_the_rest(project: Path) -> None:
    app = app_on(project)
    async with serving(app) as api:
        failed = await launch(api, "etl", variables={"bad": True, "n": 5})
        assert failed["status"] == "failed"
        answer = await retry(api, failed["id"], variables={"bad": False})
        again = answer.json()
        assert answer.status_code == 201
        assert answer.headers["location"] == f"{V1}/pipeline_runs/{again['id']}"
        assert (again["status"], again["retry_of"], again["cause"]) == ("completed", failed["id"], "retry")
        assert again["execution_date"] == failed["execution_date"]
        assert again["variables"] == {"bad": False, "n": 5}
        assert blocks(again)["load"] == ("completed", 0), "carried over, not run again"
        assert blocks(again)["check"] == ("completed", 1)
        save = next(b for b in again["block_runs"] if b["block_uuid"] == "save")
        output = (await api.get(f"{V1}/block_runs/{save['id']}/output")).json()
        assert output["outputs"][0]["value"] == {"saved": 6}
        assert (await api.get(f"{V1}/pipeline_runs/{failed['id']}")).json()["status"] == "failed", (
            "terminal is terminal"
        )
        await assert_hold(app.state.engine.db)


async def test_a_retry_from_a_block_runs_it_and_what_is_below(project: Path) -> None:
    app = app_on(project)
    async with serving(app) as api:
        first = await launch(api, "etl")
        again = (await retry(api, first["id"], **{"from": "check"})).json()
        assert {uuid: tries for uuid, (_, tries) in blocks(again).items()} == {
            "load": 0,
            "check": 1,
            "side": 0,
            "save": 1,
        }
        whole = (await retry(api, first["id"], **{"from": "start"})).json()
        assert {tries for _, tries in blocks(whole).values()} == {1}
        await assert_hold(app.state.engine.db)


async def test_a_retry_of_a_single_block_runs_that_block_alone(project: Path) -> None:
    app = app_on(project)
    async with serving(app) as api:
        await launch(api, "etl", variables={"n": 5})
        alone = await launch(api, "etl", block_uuid="check")
        for source in ("start", "failed", "check"):
            again = (await retry(api, alone["id"], **{"from": source})).json()
            assert again["status"] == "completed"
            assert blocks(again)["load"] == ("completed", 0)
        await assert_hold(app.state.engine.db)


async def test_what_cannot_be_retried_is_refused(project: Path) -> None:
    async with serving(app_on(project)) as api:
        slow = await launch(api, "slow", wait=0)
        live = await retry(api, slow["id"])
        assert (live.status_code, live.json()["code"]) == (409, "conflict")
        await api.post(f"{V1}/pipeline_runs/{slow['id']}/cancel", headers={"Prefer": "wait=20"})
        first = await retry(api, slow["id"], wait=0)
        assert first.status_code == 202
        second = await retry(api, slow["id"], wait=0)
        assert (second.status_code, second.json()["code"]) == (409, "conflict")
        await api.post(f"{V1}/pipeline_runs/{first.json()['id']}/cancel", headers={"Prefer": "wait=20"})
        assert (await retry(api, slow["id"], **{"from": "nobody"})).json()["code"] == "unknown_block"
        assert (await retry(api, 999_999)).status_code == 404
        assert (await retry(api, slow["id"], source="failed")).status_code == 422


async def test_a_frame_is_shown_by_its_schema_and_first_rows(project: Path) -> None:
    async with serving(app_on(project)) as api:
        run = await launch(api, "frame")
        assert run["status"] == "completed", run
        (output,) = (await api.get(f"{V1}/block_runs/{run['block_runs'][0]['id']}/output")).json()["outputs"]
        assert (output["kind"], output["value"]) == ("parquet", None)
        preview = output["preview"]
        assert (preview["rows"], preview["columns"], preview["column_names"]) == (9, 2, ["id", "name"])
        assert preview["column_types"][0] == "int64"
        assert [row[0] for row in preview["head"]] == ["0", "1", "2", "3", "4"]
        assert len(preview["head"][0][1]) == 80


async def test_the_same_request_with_the_same_key_has_its_effect_once(project: Path) -> None:
    app = app_on(project)
    async with serving(app) as api:
        url, headers = f"{V1}/pipelines/etl/pipeline_runs", {"Idempotency-Key": "one", "Prefer": "wait=30"}
        first = await api.post(url, json={"variables": {"n": 1}}, headers=headers)
        again = await api.post(url, json={"variables": {"n": 1}}, headers=headers)
        assert again.json() == first.json()
        assert (again.status_code, again.headers["idempotency-replayed"]) == (201, "true")
        assert "idempotency-replayed" not in first.headers
        other = await api.post(url, json={"variables": {"n": 2}}, headers=headers)
        assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
        assert len((await api.get(f"{V1}/pipeline_runs")).json()["items"]) == 1


async def test_the_same_request_sent_at_once_has_its_effect_once(project: Path) -> None:
    app = app_on(project)
    async with serving(app) as api:
        url, headers = f"{V1}/pipelines/etl/pipeline_runs", {"Idempotency-Key": "many"}
        answers = await asyncio.gather(*(api.post(url, headers=headers) for _ in range(20)))
        assert {answer.status_code for answer in answers} == {201}
        assert len({answer.json()["id"] for answer in answers}) == 1
        runs = (await api.get(f"{V1}/pipeline_runs")).json()["items"]
        assert len(runs) == 1
        assert await app.state.engine.wait(runs[0]["id"], 30)
        await assert_hold(app.state.engine.db)


async def test_a_key_whose_answer_was_never_kept_shows_what_became_of_the_effect(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.routers import repeats

    async def dies(*_: Any) -> None:
        """As if the service had died between the effect and its answer."""

    async with serving(app_on(project)) as api:
        url, headers = f"{V1}/pipelines/etl/pipeline_runs", {"Idempotency-Key": "lost", "Prefer": "wait=30"}
        with monkeypatch.context() as patch:
            patch.setattr(repeats, "keep_answer", dies)
            first = (await api.post(url, headers=headers)).json()
        second = (await api.post(url, headers=headers)).json()
        assert second["id"] == first["id"]
        assert second["status"] == "completed"
