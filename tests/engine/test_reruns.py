"""What a retry takes over when the code is not what it was, with real workers, on both databases."""

from pathlib import Path

import pytest

from app.models.states import RunStatus
from app.scheduler.build import build_engine
from app.scheduler.engine import running
from app.scheduler.launch import LaunchRequest
from app.scheduler.retry import CodeChanged
from app.settings import Settings
from app.store import runs
from tests.invariants import assert_hold

FILES = {
    "metadata.yaml": "name: shop\n",
    "pipelines/p/metadata.yaml": (
        "blocks:\n- {uuid: many, type: custom, configuration: {dynamic: true}}\n"
        "- {uuid: each, type: custom, upstream_blocks: [many]}\n"
    ),
    "custom/many.py": "@custom\ndef f(*args, **kwargs):\n    return [[1, 2, 3]]\n",
    "custom/each.py": "@custom\ndef f(n, *args, **kwargs):\n    return 6 // (3 - n) if n in (1, 3) else n\n",
}


async def test_hashes_are_found_through_children_and_runs_before(tmp_path: Path, database_url: str) -> None:
    for name, text in FILES.items():
        (tmp_path / "shop" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "shop" / name).write_text(text)
    (tmp_path / "shop/.runwright").mkdir()
    settings = Settings(
        project=tmp_path / "shop", database_url=database_url, workers=1, warm_workers=1, drain_s=0
    )
    async with running(build_engine(settings, scheduling=False)) as engine:

        async def ended(run_id: int) -> RunStatus:
            assert await engine.wait(run_id, 30)
            run = await engine.db.read(runs.get, run_id)
            assert run is not None
            return run.status

        first = await engine.launch(LaunchRequest(pipeline_uuid="p"))
        assert await ended(first.id) is RunStatus.FAILED
        each = tmp_path / "shop/custom/each.py"
        each.write_text(FILES["custom/each.py"].replace("in (1, 3)", "in (1, 4)"))
        with pytest.raises(CodeChanged, match="the code of finished blocks has changed: 'each'"):
            await engine.retry(first.id)
        second = await engine.retry(first.id, changed="accept")
        assert await ended(second.id) is RunStatus.COMPLETED
        blocks = {b.block_uuid: b for b in await engine.db.read(runs.blocks, second.id, attempts=False)}
        found = await engine.db.read(runs.code_hashes, [blocks["many"].id, blocks["each"].id, 999_999])
        assert {len(found[blocks["many"].id]), len(found[blocks["each"].id])} == {1, 2} and len(found) == 2
        third = await engine.retry(second.id, changed="rerun")
        assert await ended(third.id) is RunStatus.COMPLETED
        blocks = {b.block_uuid: b for b in await engine.db.read(runs.blocks, third.id, attempts=False)}
        found = await engine.db.read(runs.code_hashes, [blocks["each"].id])
        assert len(found[blocks["each"].id]) == 1, "no item of older code is left"
        await assert_hold(engine.db)
