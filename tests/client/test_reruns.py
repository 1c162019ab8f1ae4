"""Retries whose code has changed, and secrets, from the command line and the client at a real service."""

import json

import pytest
from typer.testing import CliRunner

from app.cli.root import program
from app.client import Client, NotFound
from tests.cli.conftest import Invoke
from tests.cli.terminal import on_terminal
from tests.client.conftest import Service


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RUNWRIGHT_URL", "RUNWRIGHT_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def test_changed_code_is_refused_until_it_is_said_what_to_do(
    invoke: Invoke, service: Service, client: Client
) -> None:
    run = client.wait(client.launch("hello").id, 30)
    file = service.project / "data_loaders/greet.py"
    before = file.read_text()
    file.write_text(before.replace("'hello '", "'hi '"))
    retry = ("runs", "retry", str(run.id), "--from", "shout", "-s", service.url)
    try:
        code, _, err = invoke(*retry)
        assert code == 5 and "the code of finished blocks has changed: 'greet'" in err
        assert "--changed rerun" in err and "--changed accept" in err
        assert invoke(*retry, "--changed", "perhaps")[0] == 2
        assert invoke(*retry, "--changed", "accept", "--watch")[0] == 0
        accepted = next(iter(client.runs(pipeline_uuid="hello", limit=1)))
        assert [line.text for line in client.logs(accepted.id)] == ["shouting HELLO WORLD"]
        assert answered(retry, "y") == 0
        rerun = client.wait(next(iter(client.runs(pipeline_uuid="hello", limit=1))).id, 30)
        assert rerun.retry_of == run.id
        assert [line.text for line in client.logs(rerun.id)] == ["hello world", "shouting HI WORLD"]
    finally:
        file.write_text(before)


def answered(command: tuple[str, ...], answer: str) -> int:
    """The exit code of a command on a terminal where somebody types an answer."""
    with on_terminal(*command) as terminal:
        terminal.until("Run them again")
        terminal.type(f"{answer}\n")
        return terminal.program.wait(60)


def test_secrets_through_a_service(invoke: Invoke, service: Service, client: Client) -> None:
    at = ("-s", service.url)
    done = CliRunner().invoke(program, ["secrets", "set", "pw", *at], input="hunter22\n")
    assert (done.exit_code, done.stdout) == (0, "secret 'pw' is set\n")
    assert client.put_secret("other", "x").name == "other"
    assert [secret.name for secret in client.secrets()] == ["other", "pw"]
    assert invoke("secrets", "rotate", *at)[1] == "2 secrets are sealed with the first key\n"
    code, out, _ = invoke("secrets", "ls", "-o", "json", "-s", service.project)
    assert (code, [row["name"] for row in json.loads(out)]) == (0, ["other", "pw"])
    client.delete_secret("other")
    with pytest.raises(NotFound):
        client.delete_secret("other")
    assert invoke("secrets", "rm", "pw", *at)[0] == 0
    code, _, err = invoke("secrets", "ls", "-s", "http://127.0.0.1:1")
    assert code == 7 and "No answer from" in err
