"""What the API shows of a run whose outputs are no longer kept."""

from datetime import timedelta
from pathlib import Path

from app.scheduler.pruner import Pruner
from tests.api.conftest import app_on, serving
from tests.api.project import make_project

BIG = {
    "pipelines/big/metadata.yaml": "blocks:\n- {uuid: big, type: custom, upstream_blocks: []}\n",
    "custom/big.py": "@custom\ndef big(*args, **kwargs):\n    return {1: 'keys that JSON has not'}\n",
}


async def test_an_output_whose_file_is_gone_says_so(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    for name, text in BIG.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
    app = app_on(project, keep_outputs_days=1e-9)
    async with serving(app) as client:
        made = []
        for _ in range(2):
            answer = await client.post("/api/v1/pipelines/big/pipeline_runs", headers={"Prefer": "wait=30"})
            assert answer.json()["status"] == "completed"
            made.append(answer.json()["id"])
        run = (await client.get(f"/api/v1/pipeline_runs/{made[0]}")).json()
        output = f"/api/v1/block_runs/{run['block_runs'][0]['id']}/output"
        assert (await client.get(output)).json()["outputs"][0]["kind"] == "pickle"

        engine = app.state.engine
        none = timedelta(0)
        done = await Pruner(
            engine.db, engine.catalogue, engine.settings, engine.node_id, share=1.0, grace=none
        ).run()
        assert (done.outputs, done.folders) == (1, 1), "the newest completed run keeps its own"
        assert (await client.get(output)).json()["outputs"][0]["kind"] == "gone"
