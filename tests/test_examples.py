"""Each example is valid, and its README is true: its commands, typed as they stand, do what it says."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.test_quickstart import runwright
from tests.test_readme import Terminal

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
NAMES = ("time_trigger", "api_trigger", "sensor", "trigger_pipeline")
RUNS = "/api/v1/pipeline_runs"
Walk = Callable[[str], tuple[Terminal, list[str]]]


def copied(name: str, to: Path) -> Path:
    return shutil.copytree(
        EXAMPLES / name, to / name, ignore=shutil.ignore_patterns(".runwright", "inbox", "__pycache__")
    )


def test_every_example_is_here_and_has_a_readme() -> None:
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir()}
    assert folders == {"quickstart", *NAMES}
    assert all((EXAMPLES / name / "README.md").is_file() for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_example_is_valid(name: str, tmp_path: Path) -> None:
    done = runwright("validate", copied(name, tmp_path))
    assert done.returncode == 0 and done.stdout.startswith("valid"), done.stdout + done.stderr


@pytest.fixture
def walk(tmp_path: Path) -> Iterator[Walk]:
    """Go through an example's README: the service on a copy of it, and what each further block of commands said."""
    opened: list[Terminal] = []

    def walk(name: str) -> tuple[Terminal, list[str]]:
        project = copied(name, tmp_path)
        triggers = project / "pipelines" / "report" / "triggers.yaml"
        if triggers.exists():  # a minute is long for a test
            triggers.write_text(triggers.read_text().replace("'* * * * *'", "'* * * * * *'"))
        terminal = Terminal(project)
        opened.append(terminal)
        first, *scripts = re.findall(r"```sh\n(.*?)```", (project / "README.md").read_text(), re.DOTALL)
        assert first == f"runwright start examples/{name}\n"
        terminal.start()
        said = []
        for script in scripts:
            if script.startswith("curl") and said:
                terminal.wait_for(RUNS, _has_ended)
            said.append(terminal.type(_here(script, terminal, name)))
        return terminal, said

    yield walk
    for terminal in opened:
        terminal.close()


def _here(script: str, terminal: Terminal, name: str) -> str:
    from tests.test_readme import BIN

    return f"PATH={BIN}:$PATH\n" + script.replace(f"examples/{name}", str(terminal.project))


def _has_ended(page: Any) -> bool:
    return any(run["status"] == "completed" for run in page["items"])


def logged(terminal: Terminal, run: Any) -> str:
    page = terminal.wait_for(f"{RUNS}/{run['id']}/logs", lambda _: True)
    return "\n".join(line["text"] for line in page["items"])


def ended(terminal: Terminal, count: int) -> list[Any]:
    """All runs, newest first, when so many have completed."""

    def done(page: Any) -> bool:
        return [run["status"] for run in page["items"]].count("completed") >= count

    items: list[Any] = terminal.wait_for(RUNS, done)["items"]
    return items


def test_time_triggers_run_at_their_times(walk: Walk) -> None:
    terminal, (listed, after) = walk("time_trigger")
    assert all(name in listed for name in ("every_minute", "daily", "weekday_mornings"))
    assert "07:30:00 +0" in listed
    assert '"cause":"tick"' in after and '"outcome":"run"' in after
    assert "started by every_minute" in logged(terminal, ended(terminal, 1)[-1])


def test_the_api_trigger_starts_runs_for_who_has_its_token(walk: Walk) -> None:
    terminal, (posted, bearer) = walk("api_trigger")
    assert '"pipeline_run"' in posted and '"pipeline_run"' in bearer
    second, first = ended(terminal, 2)
    assert "hello, Ada" in logged(terminal, first) and "'ticket': 7" in logged(terminal, first)
    assert "hello, world" in logged(terminal, second) and "also said" not in logged(terminal, second)


def test_the_secret_of_the_api_trigger_is_the_services_to_make(tmp_path: Path) -> None:
    project = copied("api_trigger", tmp_path)
    triggers = project / "pipelines" / "greet" / "triggers.yaml"
    triggers.write_text(re.sub(r"  token: .*\n", "", triggers.read_text()))
    terminal = Terminal(project)
    try:
        terminal.start()
        (script,) = re.findall(r"```\n(curl.*?)```", (project / "README.md").read_text(), re.DOTALL)
        token = re.search(r'"token":\s*"([^"]+)"', terminal.type(script))
        assert token is not None
        url = f"http://127.0.0.1:8000/api/pipeline_schedules/1/pipeline_runs/{token[1]}"
        assert '"pipeline_run"' in terminal.type(f"curl -s -X POST {url}")
    finally:
        terminal.close()


def test_the_sensor_waits_for_its_file(walk: Walk) -> None:
    terminal, (started, _, newest) = walk("sensor")
    assert '"status":"running"' in started and '"status":"completed"' in newest
    assert "2 orders" in logged(terminal, ended(terminal, 1)[0])
    done = runwright("run", terminal.project, "import_orders", "--skip-sensors")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_pipeline_triggers_another(walk: Walk) -> None:
    terminal, (said,) = walk("trigger_pipeline")
    assert '"cause":"pipeline"' in said
    child, parent = ended(terminal, 2)
    assert (parent["pipeline_uuid"], child["pipeline_uuid"]) == ("orders", "downstream_pipeline")
    assert child["variables"]["upstream_date"] in logged(terminal, child)
