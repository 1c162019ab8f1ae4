"""While a node has lost its lease and the next one waits for the database: HTTP is up, changes are refused."""

from pathlib import Path

import httpx

from app.main import create_app
from app.settings import load
from tests.api.conftest import serving
from tests.api.project import make_project
from tests.soak.proxy import wire
from tests.waits import until


async def test_changes_are_refused_until_the_next_node_is_up(postgres_url: str, tmp_path: Path) -> None:
    async with wire(postgres_url) as proxy:
        few = {"workers": 1, "warm_workers": 1, "drain_s": 0, "lease_s": 5}
        app = create_app(load(make_project(tmp_path / "project"), database_url=proxy.url, **few))
        async with serving(app) as client:
            first = app.state.engine
            health = (await client.get("/health")).json()
            await proxy.down()
            await until(lambda: first.is_lost, 30)
            for method, path in (
                ("POST", "/api/v1/pipelines/nothing_of_that_name/pipeline_runs"),
                ("POST", "/api/v1/pipeline_runs/1/cancel"),
                ("DELETE", "/api/v1/pipeline_schedules/1"),
            ):
                answer = await client.request(method, path)
                assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1"), path
                assert answer.json()["code"] == "not_ready"
            assert (await client.get("/livez")).status_code == 200
            assert (await client.get("/readyz")).status_code == 503
            await proxy.up()

            async def ready() -> bool:
                return (await client.get("/readyz")).status_code == 200

            await until(ready, 30)
            assert app.state.engine is not first
            again = (await client.get("/health")).json()
            assert ids(again) & ids(health) == set()
            refused: httpx.Response = await client.post(
                "/api/v1/pipelines/nothing_of_that_name/pipeline_runs"
            )
            assert refused.status_code == 404


def ids(health: dict[str, list[dict[str, str]]]) -> set[str]:
    return {node["id"] for node in health["nodes"]}
