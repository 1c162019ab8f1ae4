"""The OpenAPI document is true to the routes, and its page needs nothing from outside."""

import re

import httpx
import pytest

from app.pipelines.trigger_settings import READERS

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_every_operation_declares_its_problems_and_its_security(api: httpx.AsyncClient) -> None:
    document = (await api.get("/openapi.json")).json()
    operations = [
        (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    assert len(operations) >= 13
    for method, path, operation in operations:
        declared = {int(status) for status in operation["responses"]}
        wanted = {421, 422, 500, 503}
        keyed = path.startswith("/api/v1/")
        wanted |= {401} if keyed else set()
        wanted |= {404} if "{" in path else set()
        wanted |= {400, 403, 408, 413, 415} if method == "post" else set()
        assert declared >= wanted, (method, path)
        token = [{"triggerToken": []}] if path.endswith("/api_trigger") else []
        assert operation["security"] == ([{}, {"bearer": []}, {"apiKey": []}] if keyed else token), path
        assert operation["description"], path
        for status in declared - {200, 201, 202, 204}:
            content = operation["responses"][str(status)]["content"]
            assert content == {
                "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
            }


async def test_every_setting_of_a_trigger_is_shown_with_what_it_means(api: httpx.AsyncClient) -> None:
    schemas = (await api.get("/openapi.json")).json()["components"]["schemas"]
    for name in ("ScheduleCreate", "SchedulePatch", "PreviewAsked"):
        shown = schemas[name]["properties"]["settings"]
        assert shown["properties"].keys() == READERS.keys(), name
        assert all(one["description"] for one in shown["properties"].values())
        assert shown["additionalProperties"] is False


async def test_every_reference_leads_somewhere(api: httpx.AsyncClient) -> None:
    answer = await api.get("/openapi.json")
    schemas = answer.json()["components"]["schemas"]
    names = set(re.findall(r'"#/components/schemas/([^"]+)"', answer.text))
    assert {"Problem", "Fault", "PipelineRun"} <= names <= schemas.keys()


async def test_the_page_loads_only_what_this_service_serves(api: httpx.AsyncClient) -> None:
    page = await api.get("/docs")
    places = re.findall(r"""(?:src|href)="([^"]*)"|url: '([^']*)'""", page.text)
    local = [one or other for one, other in places]
    assert len(local) >= 4
    for place in local:
        assert place.startswith("/") and not place.startswith("//"), place
        assert (await api.get(place)).status_code == 200, place
    assert "http://" not in page.text and "https://" not in page.text
    assert '"validatorUrl": null' in page.text


async def test_the_page_runs_under_its_own_policy(api: httpx.AsyncClient) -> None:
    from base64 import b64encode
    from hashlib import sha256

    page = await api.get("/docs")
    policy = page.headers["content-security-policy"]
    scripts = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    assert len(scripts) == 1
    digest = b64encode(sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src 'self' 'sha256-{digest}';" in policy
    assert "connect-src 'self'" in policy and "unsafe-inline" not in policy.split("style-src")[0]
