"""The commands that speak to a service, typed at a real one."""

import json
import re
import signal
import subprocess
from pathlib import Path

import pytest

from app.client import Client
from tests.cli.conftest import BIN, Invoke, environment
from tests.cli.terminal import on_terminal
from tests.client.conftest import Service
from tests.soak.service import wait_for

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RUNWRIGHT_URL", "RUNWRIGHT_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def rows(said: str) -> list[list[str]]:
    return [re.split(r" {2,}", line.strip()) for line in said.splitlines()]


def test_pipelines(invoke: Invoke, service: Service) -> None:
    code, out, _ = invoke("pipelines", "ls", "--server", service.url)
    assert code == 0 and rows(out)[0] == ["PIPELINE", "STATUS", "BLOCKS", "DESCRIPTION"]
    assert ["hello", "ok", "2", "greets"] in rows(out)
    assert any(row[:2] == ["invalid", "invalid"] and "metadata.yaml:" in row[3] for row in rows(out))
    code, out, _ = invoke("pipelines", "show", "hello", "-s", service.project)
    assert code == 0 and ["shout", "transformer", "greet", "transformers/shout.py"] in rows(out)
    code, out, _ = invoke("pipelines", "show", "hello", "-o", "json", "-s", service.url)
    assert json.loads(out)["blocks"][0]["uuid"] == "greet"


def test_a_run_from_launch_to_retry(invoke: Invoke, service: Service, client: Client) -> None:
    at = ("-s", service.url)
    vars_ = ("--runtime-vars", '{"name": "Ada"}')
    code, out, _ = invoke("runs", "launch", "hello", *vars_, *at)
    assert code == 0
    run_id = re.fullmatch(r"run (\d+) of hello is \w+\n", out)[1]  # type: ignore[index]
    code, out, _ = invoke("runs", "logs", run_id, "-f", *at)
    assert code == 0 and [line.split(" ", 1)[1] for line in out.splitlines()] == [
        "greet | hello Ada",
        "shout | shouting HELLO ADA",
    ]
    code, out, _ = invoke("runs", "logs", run_id, "--block", "shout", "-o", "json", *at)
    assert [json.loads(line)["text"] for line in out.splitlines()] == ["shouting HELLO ADA"]
    code, out, _ = invoke("runs", "show", run_id, *at)
    assert code == 0 and re.search(r"^variables: +\{\"name\": \"Ada\"\}$", out, re.M)
    assert rows(out)[-1][:3] == ["shout", "completed", "1"]
    code, out, _ = invoke("runs", "ls", "--pipeline", "hello", "--status", "completed", "--limit", "1", *at)
    assert code == 0 and rows(out)[1][:4] == [run_id, "hello", "completed", "api"]
    code, out, _ = invoke("runs", "retry", run_id, "--from", "shout", "--watch", *at)
    assert code == 0 and "shouting HELLO ADA" in out and "hello Ada" not in out
    code, out, _ = invoke("runs", "ls", "--limit", "1", "-o", "json", *at)
    assert json.loads(out)[0]["retry_of"] == int(run_id)


def test_watching_shows_what_happened_in_its_order(invoke: Invoke, service: Service) -> None:
    code, out, _ = invoke("runs", "launch", "hello", "--watch", "-s", service.url)
    assert code == 0
    said = [re.sub(r" in .*", "", line.split(" ", 1)[1]) for line in out.splitlines()]
    assert re.fullmatch(r"hello: run \d+, 2 blocks", said[0])
    assert said[1:] == [
        "greet: started",
        "greet | hello world",
        "greet: completed",
        "shout: started",
        "shout | shouting HELLO WORLD",
        "shout: completed",
        "hello: completed",
    ]


def test_the_exit_code_says_how_a_watched_run_ended(invoke: Invoke, service: Service) -> None:
    code, out, _ = invoke("runs", "launch", "broken_code", "--watch", "-s", service.url)
    assert code == 1 and "explode: failed" in out and "ValueError: no luck today" in out
    code, out, _ = invoke("runs", "show", re.search(r"run (\d+)", out)[1], "-s", service.url)  # type: ignore[index]
    assert "ValueError: no luck today (custom/explode.py:4)" in out


def test_a_terminal_shows_a_tree_and_gives_it_back_when_interrupted(service: Service, client: Client) -> None:
    run = client.launch("slow")
    watch = ("runs", "watch", str(run.id), "-s", service.url)
    with on_terminal(*watch, stderr=subprocess.PIPE) as terminal:
        terminal.until("waiting")
        terminal.program.send_signal(signal.SIGINT)
        shown = terminal.rest()
        _, errors = terminal.program.communicate(timeout=30)
        assert terminal.program.returncode == 130
    assert f"run {run.id} goes on".encode() in errors
    assert "wait_long" in shown and shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1
    assert client.cancel(run.id).id == run.id


def test_watching_has_an_end(invoke: Invoke, service: Service, client: Client) -> None:
    run = client.launch("slow")
    code, out, errors = invoke("runs", "watch", str(run.id), "--timeout", "0.5", "-s", service.url)
    assert code == 6 and f"run {run.id} is not over after 0.5 s" in errors
    assert "slow: run" in out
    client.cancel(run.id)


def test_a_run_is_cancelled(invoke: Invoke, service: Service, client: Client) -> None:
    run = client.launch("slow")
    code, out, _ = invoke("runs", "cancel", str(run.id), "-s", service.url)
    assert code == 0 and f"run {run.id} of slow is" in out
    assert client.wait(run.id, timeout=30).status == "cancelled"


def test_triggers(invoke: Invoke, service: Service) -> None:
    at = ("-s", service.url)
    code, out, _ = invoke("triggers", "create", "hello", "by cli", "--interval", "@daily", "-o", "json", *at)
    made = json.loads(out)
    assert code == 0 and (made["schedule_type"], made["status"]) == ("time", "active")
    one = str(made["id"])
    assert invoke("triggers", "pause", one, *at)[1] == f"trigger {one} (hello/by cli) is inactive\n"
    assert invoke("triggers", "resume", one, *at)[1].startswith(
        f"trigger {one} (hello/by cli) is active, next: 20"
    )
    code, out, _ = invoke("triggers", "ls", "--pipeline", "hello", *at)
    assert any(row[:6] == [one, "hello", "by cli", "time", "@daily", "active"] for row in rows(out))
    assert any(row[2] == "unreadable" and "error" in row for row in rows(out))
    code, out, _ = invoke("triggers", "trigger", one, "--watch", *at)
    assert code == 0 and "greet | hello world" in out
    assert invoke("triggers", "slots", one, *at)[0] == 0
    assert re.search(r"^name: +by cli$", invoke("triggers", "show", one, *at)[1], re.M)
    assert invoke("triggers", "delete", one, *at)[:2] == (0, f"trigger {one} is deleted\n")
    code, out, _ = invoke("triggers", "create", "hello", "callable", *at)
    token = re.search(r"^token: +(\S+)$", out, re.M)
    assert token is not None
    (other,) = re.findall(r"^id: +(\d+)$", out, re.M)
    assert invoke("triggers", "rotate-token", other, *at)[1].strip() not in ("", token[1])
    assert invoke("triggers", "delete", other, *at)[0] == 0


def test_why_a_run_went_as_it_did(invoke: Invoke, service: Service, client: Client) -> None:
    at = ("-s", service.url)
    run = client.wait(client.launch("broken_code").id, timeout=30)
    code, out, _ = invoke("runs", "explain", str(run.id), *at)
    assert code == 0 and out.splitlines() == [
        f"run {run.id} is failed",
        "  Block 'explode' failed: ValueError: no luck today (custom/explode.py:4).",
        f"    see: runwright runs logs {run.id} --block explode",
    ]
    code, out, _ = invoke("runs", "explain", str(run.id), "-o", "json", *at)
    assert json.loads(out)["reasons"][0]["code"] == "block_failed"
    assert invoke("runs", "explain", "999999", *at)[0] == 3


def test_why_a_trigger_did_not_fire(invoke: Invoke, service: Service, client: Client) -> None:
    at = ("-s", service.url)
    made = client.create_schedule(
        "hello",
        "explained",
        schedule_type="time",
        schedule_interval="30 2 * * *",
        timezone="Europe/Berlin",
        status="active",
    )
    one = str(made.id)
    code, out, _ = invoke("triggers", "explain", one, "--at", "2099-03-01 02:30", *at)
    assert code == 0 and out.startswith(f"trigger {one} (hello/explained) at Sun 2099-03-01 02:30:00 +0100\n")
    assert "It is due in" in out and "after:  Mon 2099-03-02 02:30:00 +0100" in out
    code, out, _ = invoke("triggers", "explain", one, "--at", "2020-01-01T00:00:00Z", *at)
    assert code == 0 and "The trigger did not exist yet" in out
    code, out, _ = invoke("triggers", "explain", one, "-o", "json", *at)
    assert code == 0 and json.loads(out)["pipeline_schedule_id"] == made.id
    code, _, errors = invoke("triggers", "explain", one, "--at", "noon", *at)
    assert code == 2 and "--at: 'noon' is not a time" in errors
    code, out, _ = invoke("triggers", "slots", one, "--outcome", "missed", "--since", "2020-01-01", *at)
    assert (code, out) == (0, "no slot has been due yet\n")
    assert invoke("triggers", "slots", one, "--outcome", "late", *at)[0] == 2
    code, out, _ = invoke("triggers", "next", one, "-n", "2", *at)
    assert code == 0 and [row[1] for row in rows(out)[1:]] == ["hello/explained"] * 2
    code, out, _ = invoke("triggers", "next", "-n", "3", "-o", "json", *at)
    assert len(json.loads(out)) == 3
    client.delete_schedule(made.id)


def test_everything_is_paused_and_resumed(invoke: Invoke, service: Service, client: Client) -> None:
    at = ("-s", service.url)
    code, out, _ = invoke("pause-all", "--note", "moving house", *at)
    assert (
        code == 0 and out.startswith("all triggers are paused since 20") and out.endswith(": moving house\n")
    )
    assert client.paused().note == "moving house"
    assert invoke("resume-all", "--missed", "skip", *at)[:2] == (0, "no pause of all triggers holds\n")
    assert client.paused().paused is False
    assert invoke("resume-all", "--missed", "some", *at)[0] == 2


def test_missed_slots_are_skipped_with_a_line_where_nobody_can_be_asked(
    invoke: Invoke, service: Service, client: Client
) -> None:
    at = ("-s", service.url)
    made = client.create_schedule(
        "hello", "each second", schedule_type="time", schedule_interval="* * * * * *", status="active"
    )
    one = str(made.id)
    client.pause(made.id)
    _missed(client, made.id, 2)
    code, _, errors = invoke("triggers", "resume", one, *at)
    assert code == 0 and "slots were due while it was paused" in errors and "--missed latest" in errors
    client.pause(made.id)
    _missed(client, made.id, 1)
    code, _, errors = invoke("triggers", "resume", one, "--missed", "skip", *at)
    assert (code, errors) == (0, "")
    client.pause(made.id)
    assert invoke("triggers", "resume", one, "--missed", "some", *at)[0] == 2
    client.delete_schedule(made.id)


def _missed(client: Client, schedule_id: int, count: int) -> None:
    wait_for(lambda: client.missed(schedule_id).count >= count, 30, f"{count} slots were missed")


def test_a_person_at_a_terminal_is_asked_about_missed_slots(service: Service, client: Client) -> None:
    made = client.create_schedule(
        "hello", "asked", schedule_type="time", schedule_interval="* * * * * *", status="active"
    )
    client.pause(made.id)
    _missed(client, made.id, 2)
    with on_terminal("triggers", "resume", str(made.id), "-s", service.url, term="dumb") as terminal:
        terminal.until("skip, latest or all")
        terminal.type("some\nlatest\n")
        said = terminal.rest()
        assert terminal.program.returncode == 0, said
    assert "skip    0 runs" in said and "latest  1 run," in said and "is active" in said
    client.delete_schedule(made.id)


def test_triggers_are_brought_to_their_files_by_the_service(
    invoke: Invoke, service: Service, client: Client
) -> None:
    file = service.project / "pipelines/talk/triggers.yaml"
    file.write_text("triggers: [{name: passing, schedule_type: time, schedule_interval: '@daily'}]\n")
    code, _, _ = invoke("triggers", "apply", service.project)
    assert code in (0, 1), "1: one of the project's triggers is quarantined"
    assert [found.name for found in client.schedules(pipeline_uuid="talk")] == ["passing"]
    file.write_text("triggers: []\n")
    invoke("triggers", "apply", service.project)
    code, out, _ = invoke("triggers", "apply", service.project, "--prune", "--dry-run")
    assert any(row[0] == "talk/passing" and row[2] == "would be deleted" for row in rows(out))
    code, out, _ = invoke("triggers", "apply", service.project, "--prune", "-o", "json")
    assert [found["name"] for found in json.loads(out)["deleted"]] == ["passing"]
    assert list(client.schedules(pipeline_uuid="talk")) == []


def test_exit_codes_are_stable(invoke: Invoke, service: Service, tmp_path: Path) -> None:
    at = ("-s", service.url)
    assert invoke("runs", "show", "999999", *at)[0] == 3
    assert invoke("pipelines", "show", "hallo", *at)[0] == 3
    assert invoke("runs", "ls", "--status", "gone", *at)[0] == 2
    assert invoke("runs", "ls", "-o", "xml", *at)[0] == 2
    assert invoke("runs", "launch", "hello", "--runtime-vars", "[]", *at)[0] == 2
    assert invoke("triggers", "pause", "1", *at)[0] == 5
    assert invoke("runs", "ls", "-s", "http://127.0.0.1:1")[0] == 7
    code, _, errors = invoke("runs", "ls", "-s", tmp_path)
    assert code == 7 and "runwright start" in errors
    code, _, errors = invoke("runs", "ls", "-s", "nowhere")
    assert code == 2 and "neither an address nor a folder" in errors


def test_the_service_is_found_by_the_environment_or_the_folder(
    invoke: Invoke, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert invoke("pipelines", "ls", RUNWRIGHT_URL=service.url)[0] == 0
    monkeypatch.chdir(service.project)
    assert invoke("pipelines", "ls")[0] == 0


SCRIPT = """
import sys

from mage_ai.orchestration.triggers.api import trigger_pipeline

# Trigger and wait for completion
pipeline_run = trigger_pipeline(
    pipeline_uuid='hello',
    variables={'date': '2024-01-01'},
    check_status=True,
    poll_interval=60,  # Check every 60 seconds
    error_on_failure=True,
)
print(sys.argv, __name__, pipeline_run.status)
import beside
sys.exit(beside.CODE)
"""


def execute(*command: str | Path) -> subprocess.CompletedProcess[str]:
    line = [BIN / "runwright", "exec", *command]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, env=environment())


def test_a_plain_script_runs_as_it_is(service: Service, tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("CODE = 9\n")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = execute("-s", service.url, script, "one", "--two", "-s")
    assert done.returncode == 9, done.stderr
    assert f"['{script}', 'one', '--two', '-s'] __main__ completed" in done.stdout


def test_what_a_script_does_not_handle_shows_where(service: Service, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from runwright.client import trigger_pipeline\n\n\ntrigger_pipeline('hallo', variables={'a': 1})\n"
    )
    done = execute("-s", service.url, script)
    assert done.returncode == 3
    assert 'script.py", line 4' in done.stderr and "hallo" in done.stderr
    assert execute(tmp_path / "nothing.py").returncode == 3


def test_the_guide_is_true(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    guide = (ROOT / "docs/guides/from-a-terminal-and-from-python.md").read_text(encoding="utf-8")
    first, second = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    exec(first.replace("http://127.0.0.1:8000", service.url), {})
    said = capsys.readouterr().out
    assert "hello Ada\nshouting HELLO ADA\ncompleted\n" in said and "yearly" in said
    assert "mage_ai.orchestration.triggers.api import trigger_pipeline" in second
