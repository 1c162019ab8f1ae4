"""Children of dynamic blocks over HTTP: counted with their run, listed by themselves, outputs shown by their kind."""

from pathlib import Path

from tests.api.conftest import app_on, serving
from tests.api.project import make_project

FILES = {
    "custom/fan_source.py": "@custom\ndef f(*a, **kw):\n    return [[1, 2, 3], [{}, {}, {'block_uuid': 'last'}]]\n",
    "custom/fan_each.py": "@custom\ndef f(n, *a, **kw):\n    return n * 10\n",
    "custom/fan_total.py": "@custom\ndef f(parts, *a, **kw):\n    return sum(parts)\n",
    "pipelines/fan/metadata.yaml": """\
uuid: fan
type: python
blocks:
- {uuid: fan_source, type: custom, language: python, configuration: {dynamic: true}}
- {uuid: fan_each, type: custom, language: python, upstream_blocks: [fan_source], configuration: {reduce_output: true}}
- {uuid: fan_total, type: custom, language: python, upstream_blocks: [fan_each]}
""",
}


async def test_children_are_counted_with_their_run_and_listed_by_themselves(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    for name, text in FILES.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
    async with serving(app_on(project)) as api:
        made = await api.post("/api/v1/pipelines/fan/pipeline_runs", json={}, headers={"Prefer": "wait=60"})
        run = made.json()
        assert (made.status_code, run["status"]) == (201, "completed"), made.text
        source, each, total = run["block_runs"]
        assert (each["children"], each["children_by_status"]) == (3, {"completed": 3})
        assert source["children"] is None and source["children_by_status"] is None

        url = f"/api/v1/pipeline_runs/{run['id']}/block_runs"
        names = [block["block_uuid"] for block in (await api.get(url)).json()["items"]]
        assert names == ["fan_source", "fan_each", "fan_total"]
        first = (await api.get(url, params={"parent_id": each["id"], "limit": 2})).json()
        rest = (
            await api.get(url, params={"parent_id": each["id"], "limit": 2, "cursor": first["next_cursor"]})
        ).json()
        children = first["items"] + rest["items"]
        assert [c["block_uuid"] for c in children] == ["fan_each:0", "fan_each:1", "fan_each:last"]
        assert [c["item_index"] for c in children] == [0, 1, 2] and rest["next_cursor"] is None
        assert {c["attempts"][0]["kind"] for c in children} == {"block"}
        none = await api.get(url, params={"parent_id": each["id"], "status": "failed"})
        assert none.json()["items"] == []

        async def output(block: dict[str, object]) -> dict[str, object]:
            answer = await api.get(f"/api/v1/block_runs/{block['id']}/output")
            assert answer.status_code == 200, answer.text
            (one,) = answer.json()["outputs"]
            return dict(one)

        assert [(await output(source))[name] for name in ("kind", "count")] == ["items", 3]
        assert [(await output(each))[name] for name in ("kind", "count")] == ["list", 3]
        assert (await output(total))["value"] == 60
        assert (await api.get("/api/v1/pipeline_runs/999999/block_runs")).status_code == 404
