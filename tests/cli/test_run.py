"""`run` in the forms that people know from Mage, and how it ends."""

import re
import signal
import sqlite3
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tests.api.project import make_project
from tests.cli.conftest import BIN, Invoke, environment, execute
from tests.cli.terminal import on_terminal


def known_command_lines(name: str, project: Path) -> None:
    done = execute(name, "run", project, "hello")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^\d\d:\d\d:\d\d greet \| hello world$", done.stdout, re.M)
    assert re.search(r"^\d\d:\d\d:\d\d hello: completed in \d+ ms$", done.stdout, re.M)

    done = execute(name, "run", project, "hello", "--runtime-vars", '{"name": "value"}')
    assert done.returncode == 0, done.stderr
    assert "greet | hello value" in done.stdout

    done = execute(name, "run", project, "hello", "--block-uuid", "shout")
    assert done.returncode == 0, done.stderr
    assert "shout | shouting HELLO VALUE" in done.stdout and "greet |" not in done.stdout

    done = execute(name, "run", project, "sensing", "--skip-sensors")
    assert done.returncode == 0, done.stderr
    assert "explode_not | past the sensor" in done.stdout


def test_the_known_command_lines_work_word_for_word_as_both_programs(tmp_path: Path) -> None:
    with ThreadPoolExecutor() as both:
        for done in [
            both.submit(known_command_lines, name, make_project(tmp_path / name))
            for name in ("mage", "runwright")
        ]:
            done.result()


def test_a_failing_block_is_named_with_exception_and_line(invoke: Invoke, project: Path) -> None:
    code, out, errors = invoke("run", project, "broken_code")
    assert code == 1
    assert "explode | about to fail" in out
    assert "block 'explode' failed: ValueError: no luck today (custom/explode.py:4)" in errors
    assert "Traceback" not in errors


def test_a_block_without_outputs_to_start_from_says_what_is_missing(invoke: Invoke, project: Path) -> None:
    code, _, errors = invoke("run", project, "hello", "--block-uuid", "shout")
    assert code != 0
    assert "'greet'" in errors


def test_what_does_not_exist_is_exit_3(invoke: Invoke, project: Path) -> None:
    code, _, errors = invoke("run", project, "hallo")
    assert code == 3
    assert "hallo" in errors and "hello" in errors  # the nearest name
    assert invoke("run", project, "hello", "--block-uuid", "nope")[0] == 3
    assert invoke("run", project / "nope", "hello")[0] == 3


def test_an_invalid_pipeline_is_exit_1_with_file_and_line(invoke: Invoke, project: Path) -> None:
    code, _, errors = invoke("run", project, "invalid")
    assert code == 1
    assert re.search(r"pipelines/invalid/metadata.yaml:\d+", errors)


def test_the_newest_five_runs_are_kept_with_their_outputs(invoke: Invoke, project: Path) -> None:
    for number in range(6):
        assert invoke("run", project, "hello", "--runtime-vars", f'{{"name": "{number}"}}')[0] == 0
    with closing(sqlite3.connect(project / ".runwright" / "cli" / "runwright.db")) as database:
        kept = database.execute("SELECT id FROM pipeline_run ORDER BY id").fetchall()
    assert len(kept) == 5


def test_what_a_killed_run_left_behind_is_cancelled(invoke: Invoke, project: Path) -> None:
    with subprocess.Popen(
        [BIN / "runwright", "run", project, "slow"], stdout=subprocess.PIPE, text=True, env=environment()
    ) as going:
        assert going.stdout is not None
        next(line for line in going.stdout if "waiting" in line)
        going.kill()
    code, out, _ = invoke("run", project, "hello")
    assert code == 0 and "wait_long" not in out
    with closing(sqlite3.connect(project / ".runwright" / "cli" / "runwright.db")) as database:
        found = dict(database.execute("SELECT pipeline_uuid, status FROM pipeline_run").fetchall())
        tries = database.execute("SELECT count(*) FROM block_attempt").fetchone()
    assert found == {"slow": "cancelled", "hello": "completed"}
    assert tries == (3,)  # the killed one was not begun again


@pytest.mark.parametrize(
    "text", ["{nope", "[1]", '"a"', '{"a": NaN}', '{"a": "\\u0000"}', '{"a": 1, "a": 2}', ""]
)
def test_runtime_vars_that_are_no_object_are_exit_2(text: str, invoke: Invoke, project: Path) -> None:
    code, _, errors = invoke("run", project, "hello", "--runtime-vars", text)
    assert code == 2
    assert "--runtime-vars" in errors
    assert not (project / ".runwright" / "cli").exists()


def test_another_run_goes_on_beside_one_that_is_then_interrupted(invoke: Invoke, project: Path) -> None:
    command = [BIN / "runwright", "run", project, "slow"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as going:
        assert going.stdout is not None
        next(line for line in going.stdout if "wait_long | waiting" in line)
        assert invoke("run", project, "hello")[0] == 0
        going.send_signal(signal.SIGINT)
        _, errors = going.communicate(timeout=30)
    assert going.returncode == 130
    assert "cancelled" in errors
    with closing(sqlite3.connect(project / ".runwright" / "cli" / "runwright.db")) as database:
        assert database.execute("SELECT status FROM pipeline_run").fetchall() == [("cancelled",)]


def test_a_reader_that_leaves_does_not_end_the_run(project: Path) -> None:
    with subprocess.Popen(
        [BIN / "runwright", "run", project, "hello"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as going:
        assert going.stdout is not None and going.stderr is not None
        going.stdout.readline()
        going.stdout.close()
        errors = going.stderr.read()
    assert (going.returncode, errors) == (0, b"")
    with closing(sqlite3.connect(project / ".runwright" / "cli" / "runwright.db")) as database:
        assert database.execute("SELECT status FROM pipeline_run").fetchall() == [("completed",)]


def test_the_numbers_of_runs_have_no_gaps(invoke: Invoke, project: Path) -> None:
    said = [invoke("run", project, "hello")[1] for _ in range(3)]
    assert [re.search(r"hello: run (\d+)", text)[1] for text in said] == ["1", "2", "3"]  # type: ignore[index]


def test_a_terminal_shows_a_tree(project: Path) -> None:
    with on_terminal("run", project, "hello") as terminal:
        text = terminal.rest()
        assert terminal.program.returncode == 0
    assert "greet hello world" in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    assert "└── ✓ greet" in text and "    └── ✓ shout" in text
