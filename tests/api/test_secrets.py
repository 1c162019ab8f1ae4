"""The door to secrets: values go in and never come out."""

from pathlib import Path

from pydantic import SecretStr

from tests.api.conftest import app_on, serving
from tests.api.project import make_project
from tests.invariants import assert_hold

URL = "/api/v1/secrets"
VALUE = "correct horse battery"


async def test_secrets_are_set_listed_changed_and_forgotten(tmp_path: Path) -> None:
    app = app_on(make_project(tmp_path / "project"))
    async with serving(app) as api:
        answers = [await api.put(f"{URL}/pw", json={"value": VALUE}), await api.get(URL)]
        assert [answer.status_code for answer in answers] == [200, 200]
        assert [item["name"] for item in answers[1].json()["items"]] == ["pw"]
        assert answers[0].json() == answers[1].json()["items"][0]
        answers.append(await api.put(f"{URL}/other.one", json={"value": "x"}))
        first = (await api.get(URL, params={"limit": 1})).json()
        second = (await api.get(URL, params={"limit": 1, "cursor": first["next_cursor"]})).json()
        assert [first["items"][0]["name"], second["items"][0]["name"]] == ["other.one", "pw"]
        assert second["next_cursor"] is None
        answers.append(await api.post(f"{URL}/rotate"))
        assert answers[-1].json() == {"secrets": 2}
        assert await app.state.engine.secrets.value("pw") == VALUE
        answers.append(await api.delete(f"{URL}/pw"))
        answers.append(await api.delete(f"{URL}/pw"))
        assert [answer.status_code for answer in answers[-2:]] == [204, 404]
        assert answers[-1].json()["code"] == "secret_not_found"
        refused = [
            await api.put(f"{URL}/a%20b", json={"value": VALUE}),
            await api.put(f"{URL}/a", json={"value": ""}),
            await api.put(f"{URL}/a", json={"value": VALUE, "more": 1}),
            await api.put(f"{URL}/a", json={"value": [VALUE]}),
            await api.get(f"{URL}/pw"),
        ]
        assert [answer.status_code for answer in refused] == [422, 422, 422, 422, 405]
        assert all(VALUE not in answer.text for answer in answers + refused)
        await assert_hold(app.state.engine.db)


async def test_a_key_that_is_lost_is_a_conflict_that_says_so(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    async with serving(app_on(project)) as api:
        await api.put(f"{URL}/pw", json={"value": VALUE})
    (project / ".runwright" / "secret.key").unlink()
    async with serving(app_on(project)) as api:
        lost = await api.post(f"{URL}/rotate")
        assert (lost.status_code, lost.json()["code"]) == (409, "secret_unreadable")


async def test_only_the_administrator_may(tmp_path: Path) -> None:
    key = SecretStr("k" * 40)
    async with serving(app_on(make_project(tmp_path / "project"), admin_key=key)) as api:
        assert (await api.get(URL)).status_code == 401
        assert (await api.put(f"{URL}/a", json={"value": "x"})).status_code == 401
        good = {"Authorization": f"Bearer {key.get_secret_value()}"}
        assert (await api.put(f"{URL}/a", json={"value": "x"}, headers=good)).status_code == 200
