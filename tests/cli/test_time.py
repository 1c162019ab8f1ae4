"""What a project without a service can be asked about time: intervals, what fires next, triggers brought to files."""

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.conftest import Invoke

FILE = "pipelines/slow/triggers.yaml"
TWO = """triggers:
- {name: each hour, schedule_type: time, schedule_interval: '@hourly', status: active}
- {name: asleep, schedule_type: time, schedule_interval: '@hourly'}
"""


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RUNWRIGHT_URL", "RUNWRIGHT_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def test_an_interval_is_explained_in_words_and_dates(invoke: Invoke) -> None:
    code, out, _ = invoke("cron", "explain", "30 2 * * *", "--timezone", "Europe/Berlin", "-n", "3")
    lines = out.splitlines()
    assert code == 0 and lines[0] == "30 2 * * *: at 02:30 every day (Europe/Berlin)"
    assert len([line for line in lines if re.match(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun) 20", line)]) == 3
    assert "02:30 does not exist in Europe/Berlin: its slot is 03:00+02:00" in out
    assert "02:30 comes twice in Europe/Berlin" in out
    settings = ("--dst-gap", "skip", "--dst-overlap", "both")
    code, out, _ = invoke("cron", "explain", "30 2 * * *", "--timezone", "Europe/Berlin", *settings)
    assert code == 0 and "it has no slot that day" in out and "this is the second" in out


def test_clock_changes_that_are_many_are_counted(invoke: Invoke) -> None:
    _, out, _ = invoke("cron", "explain", "* 2 * * *", "--timezone", "Europe/Berlin", "-n", "1")
    assert re.search(r"  and \d+ more\n$", out)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("61 * * * *",), "out of range"),
        (("@daily", "--timezone", "Mars/Olympus"), "Unknown time zone"),
        (("@daily", "--dst-gap", "later"), "dst_gap must be next or skip"),
    ],
)
def test_an_interval_that_is_none_is_a_usage_error(
    invoke: Invoke, arguments: tuple[str, ...], said: str
) -> None:
    code, _, errors = invoke("cron", "explain", *arguments)
    assert code == 2 and said in errors


@pytest.mark.parametrize("interval", ["@once", "@always_on"])
def test_an_interval_without_dates_says_so(invoke: Invoke, interval: str) -> None:
    code, out, _ = invoke("cron", "explain", interval)
    assert code == 0 and f"{interval} has no execution dates of its own" in out


def test_without_a_service_the_files_say_what_fires_next(invoke: Invoke, project: Path) -> None:
    (project / FILE).write_text(TWO)
    code, out, errors = invoke("triggers", "next", "-n", "3", "-s", project)
    assert code == 0 and out.count("slow/each hour") == 3 and "asleep" not in out
    assert "No service is running" in errors and "triggers of its files" in errors
    code, out, _ = invoke("triggers", "next", "-n", "2", "--pipeline", "hello", "-o", "json", "-s", project)
    found = json.loads(out)
    assert [(one["name"], one["pipeline_schedule_id"]) for one in found] == [("yearly", None)] * 2
    code, _, errors = invoke("triggers", "next", "7", "-s", project)
    assert code == 7, "only the service knows ids"
    assert invoke("triggers", "next", "-s", "http://127.0.0.1:1")[0] == 7


def test_the_files_are_read_for_the_environment_of_the_service(
    invoke: Invoke, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = "name: of dev, schedule_type: time, status: active, envs: [dev]"
    (project / FILE).write_text(f"triggers: [{{{entry}, schedule_interval: '@hourly'}}]\n")
    assert "of dev" not in invoke("triggers", "next", "-s", project)[1]
    monkeypatch.setenv("RUNWRIGHT_ENV", "dev")
    assert "slow/of dev" in invoke("triggers", "next", "-s", project)[1]
    (project / FILE).write_text(f"triggers: [{{{entry}, schedule_interval: 'x'}}]\n")
    assert FILE in invoke("validate", project)[1]


@pytest.mark.parametrize("command", [("triggers", "apply"), ("triggers", "next"), ("secrets", "ls")])
def test_an_address_in_the_environment_is_never_replaced_by_the_folder(
    invoke: Invoke, project: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setenv("RUNWRIGHT_URL", "http://127.0.0.1:1")
    assert invoke(*command)[0] == 7
    assert not (project / ".runwright").exists()


@pytest.mark.parametrize("command", [("triggers", "apply"), ("secrets", "ls")])
def test_a_database_of_another_project_is_left_alone(
    invoke: Invoke, project: Path, command: tuple[str, ...]
) -> None:
    invoke("triggers", "apply", project)
    (project / "metadata.yaml").write_text("name: another\n")
    code, _, errors = invoke(*command, "-s", project)
    assert code != 0 and "belongs to the project" in errors


def known(project: Path) -> dict[str, tuple[str, bool]]:
    with closing(sqlite3.connect(project / ".runwright" / "runwright.db")) as database:
        rows = database.execute("SELECT name, status, deleted_at IS NOT NULL FROM pipeline_schedule")
        return {name: (status, bool(gone)) for name, status, gone in rows}


def test_without_a_service_the_database_is_brought_to_the_files(invoke: Invoke, project: Path) -> None:
    (project / FILE).write_text(TWO)
    code, out, _ = invoke("triggers", "apply", project, "--dry-run")
    assert "slow/each hour" in out and "would be created" in out
    assert not (project / ".runwright" / "runwright.db").exists(), "a dry run makes no database"
    code, out, _ = invoke("triggers", "apply", project)
    assert code == 1 and "every now and then" in out, "one of them is quarantined"
    code, out, _ = invoke("triggers", "apply", project)
    assert code == 1 and "every now and then" in out and "created" not in out, "it still is"
    before = known(project)
    assert before["each hour"] == ("active", False)
    (project / "pipelines/hello/triggers.yaml").unlink()
    (project / FILE).write_text(
        "triggers: [{name: asleep, schedule_type: time, schedule_interval: '@daily'}]\n"
    )
    code, out, errors = invoke("triggers", "apply", project)
    assert code == 0 and "deactivated" in out and "changed" in out and "--prune" in errors
    assert known(project)["each hour"] == ("inactive", False)
    code, out, _ = invoke("triggers", "apply", project, "--prune", "--dry-run", "-o", "json")
    assert {one["name"] for one in json.loads(out)["deleted"]} == {"each hour", "yearly", "unreadable"}
    assert known(project)["each hour"] == ("inactive", False)
    assert invoke("triggers", "apply", project, "--prune")[0] == 0
    assert {name for name, (_status, gone) in known(project).items() if gone} == {
        "each hour",
        "yearly",
        "unreadable",
    }
    assert invoke("triggers", "apply", project, "--prune") == (0, "the triggers are as their files say\n", "")
