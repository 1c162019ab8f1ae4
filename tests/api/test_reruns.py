"""Retries after the code has changed, and single blocks with all that is above them."""

from pathlib import Path

from tests.api.conftest import app_on, serving
from tests.api.test_retry import V1, blocks, launch, project, retry
from tests.invariants import assert_hold

__all__ = ["project"]


def tries(run: dict[str, object]) -> dict[str, int]:
    return {uuid: count for uuid, (_, count) in blocks(run).items() if uuid != "side"}  # it may be cut short


async def test_a_retry_says_which_finished_blocks_have_other_code(project: Path) -> None:
    app = app_on(project)
    async with serving(app) as api:
        failed = await launch(api, "etl", variables={"bad": True})
        mended = project / "custom/check.py"
        mended.write_text(mended.read_text().replace("+ 1", "+ 10"))  # failed: its code may change
        load = project / "custom/load.py"
        before = load.read_text()
        load.write_text(before.replace(", 1)", ", 100)"))
        refused = await retry(api, failed["id"], variables={"bad": False})
        problem = refused.json()
        assert (refused.status_code, problem["code"]) == (409, "code_changed")
        assert problem["errors"] == [{"pointer": "/blocks/load", "message": "custom/load.py has changed"}]
        assert "'load'" in problem["detail"] and "rerun" in problem["hint"]

        kept = (await retry(api, failed["id"], variables={"bad": False}, changed="accept")).json()
        assert (kept["status"], tries(kept)) == ("completed", {"load": 0, "check": 1, "save": 1})
        again = (await retry(api, failed["id"], variables={"bad": False}, changed="rerun")).json()
        assert (again["status"], tries(again)) == ("completed", {"load": 1, "check": 1, "save": 1})
        save = next(b for b in again["block_runs"] if b["block_uuid"] == "save")
        output = (await api.get(f"{V1}/block_runs/{save['id']}/output")).json()
        assert output["outputs"][0]["value"] == {"saved": 110}

        # A retry of a retry knows what made the outputs that were handed down twice.
        load.write_text(before)
        assert (await retry(api, kept["id"], **{"from": "save"})).status_code == 201
        third = await retry(api, again["id"], **{"from": "save"})
        assert third.json()["code"] == "code_changed"
        assert (await retry(api, again["id"], **{"from": "start"})).status_code == 201, (
            "nothing is carried over"
        )
        assert (await retry(api, again["id"], changed="maybe")).status_code == 422
        await assert_hold(app.state.engine.db)


async def test_a_single_block_can_bring_what_is_above_it(project: Path) -> None:
    app = app_on(project)
    async with serving(app) as api:
        run = await launch(api, "etl", block_uuid="check", with_upstream=True, variables={"n": 5})
        assert (run["status"], tries(run)) == ("completed", {"load": 1, "check": 1})
        again = (await retry(api, run["id"], **{"from": "load"})).json()
        assert (again["status"], tries(again)) == ("completed", {"load": 1, "check": 1})
        whole = await api.post(f"{V1}/pipelines/etl/pipeline_runs", json={"with_upstream": True})
        assert (whole.status_code, whole.json()["errors"][0]["pointer"]) == (422, "/with_upstream")
        await assert_hold(app.state.engine.db)


ITEMS = {
    "pipelines/items/metadata.yaml": (
        "blocks:\n- {uuid: many, type: custom, configuration: {dynamic: true}}\n"
        "- {uuid: each, type: custom, upstream_blocks: [many], configuration: {reduce_output: true}}\n"
        "- {uuid: total, type: custom, upstream_blocks: [each]}\n"
    ),
    "custom/many.py": "@custom\ndef f(*args, **kwargs):\n    return [[1, 2, 3]]\n",
    "custom/each.py": (
        "@custom\ndef f(n, *args, **kwargs):\n"
        "    if n == kwargs.get('bad'):\n        raise ValueError('bad item')\n    return n * 10\n"
    ),
    "custom/total.py": "@custom\ndef f(found, *args, **kwargs):\n    return sum(found)\n",
}


async def test_items_that_completed_with_other_code_are_asked_about_too(project: Path) -> None:
    for name, text in ITEMS.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
    each = project / "custom/each.py"
    app = app_on(project)

    async def total(run: dict[str, object]) -> object:
        blocks = run["block_runs"]
        found = next(b for b in blocks if b["block_uuid"] == "total")  # type: ignore[attr-defined]
        return (await api.get(f"{V1}/block_runs/{found['id']}/output")).json()["outputs"][0]["value"]

    async with serving(app) as api:
        failed = await launch(api, "items", variables={"bad": 3})
        assert failed["status"] == "failed"
        good = (await retry(api, failed["id"], variables={"bad": 0})).json()
        assert (good["status"], await total(good)) == ("completed", 60)
        before = each.read_text()
        each.write_text(before.replace("* 10", "* 100"))
        for run in (failed, good):  # some items completed there; all did, some of them handed down
            refused = (await retry(api, run["id"], variables={"bad": 0})).json()
            assert refused["code"] == "code_changed", refused
            assert refused["errors"] == [{"pointer": "/blocks/each", "message": "custom/each.py has changed"}]
        again = (await retry(api, failed["id"], variables={"bad": 0}, changed="rerun")).json()
        assert (again["status"], await total(again)) == ("completed", 600)
        mixed = (await retry(api, good["id"], changed="accept", **{"from": "total"})).json()
        assert (mixed["status"], await total(mixed)) == ("completed", 60)
        # Asked for by name it runs again, each item of it.
        named = (await retry(api, good["id"], **{"from": "each"})).json()
        assert (named["status"], await total(named)) == ("completed", 600)
        await assert_hold(app.state.engine.db)
