"""`run_pipeline`: the clock, what stands in for blocks, other pipelines, triggers, and that nothing is left behind."""

import sys
import tempfile
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

import runwright.testing
from app import clock
from app.errors import InvalidInput, PipelineInvalid, PipelineNotFound, UnknownBlock
from app.testing import RunReport, run_pipeline

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
FILES = {
    "metadata.yaml": "name: here\n",
    "utils/__init__.py": "",
    "utils/words.py": "def loud(text):\n    return text.upper()\n",
    "custom/say.py": """
        from utils.words import loud

        @custom
        def say(*args, **kwargs):
            print("saying")
            kwargs["logger"].warning("mind the step")
            return loud(kwargs.get("word", "hi"))
        """,
    "custom/fail.py": """
        @custom
        def fail(*args, **kwargs):
            raise ValueError("never good")
        """,
    "custom/count.py": """
        @custom
        def count(*args, **kwargs):
            return len(args)
        """,
    "custom/ask.py": """
        from mage_ai.orchestration.triggers.api import trigger_pipeline

        @custom
        def ask(*args, **kwargs):
            run = trigger_pipeline("small", variables={"word": "child"}, check_status=True, error_on_failure=True)
            return run.status
        """,
    "custom/looks_up.py": """
        from mage_ai.data_preparation.shared.secrets import get_secret_value
        from mage_ai.data_preparation.variable_manager import get_global_variable, get_variable

        @custom
        def looks_up(*args, **kwargs):
            left = get_variable("looks", "large", "output_0")
            secrets = [get_secret_value("token"), get_secret_value("nobody")]
            return [*secrets, get_global_variable("looks", "colour"), len(left)]
        """,
    "custom/large.py": "@custom\ndef large(*args, **kwargs):\n    return 'x' * 100_000\n",
    "custom/asynchronous.py": """
        import asyncio

        @custom
        async def asynchronous(*args, **kwargs):
            await asyncio.sleep(0)
            return asyncio.get_running_loop().is_running()
        """,
    "sensors/ready.py": "@sensor\ndef ready(*args, **kwargs):\n    return False\n",
    "conditionals/maybe.py": "@condition\ndef maybe(*args, **kwargs):\n    return False\n",
    "callbacks/tell.py": "@callback('failure')\ndef tell(*args, **kwargs):\n    print(kwargs['__error'])\n",
    "data_loaders/items.py": "@data_loader\ndef items(*args, **kwargs):\n    return [[1, 2, 3]]\n",
    "pipelines/small/metadata.yaml": "blocks:\n- {uuid: say, type: custom}\n",
    "pipelines/tries/metadata.yaml": """
        blocks:
        - {uuid: fail, type: custom, retry_config: {retries: 2, delay: 30, exponential_backoff: false}}
        - {uuid: count, type: custom, upstream_blocks: [fail]}
        callbacks:
        - {uuid: tell, type: callback, upstream_blocks: [fail]}
        """,
    "pipelines/waits/metadata.yaml": """
        blocks:
        - {uuid: ready, type: sensor, configuration: {interval: 600}}
        - {uuid: say, type: custom, upstream_blocks: [ready], timeout: 60}
        """,
    "pipelines/waits/triggers.yaml": """
        triggers:
        - name: mornings
          schedule_type: time
          schedule_interval: 30 7 * * *
          timezone: Europe/Berlin
          variables: {word: morgen}
          settings: {timeout: 3600}
        """,
    "pipelines/parent/metadata.yaml": "blocks:\n- {uuid: ask, type: custom}\n",
    "pipelines/maybe/metadata.yaml": """
        blocks:
        - {uuid: say, type: custom}
        - {uuid: count, type: custom, upstream_blocks: [say]}
        conditionals:
        - {uuid: maybe, type: conditional, upstream_blocks: [say]}
        """,
    "pipelines/fan/metadata.yaml": """
        blocks:
        - {uuid: items, type: data_loader, configuration: {dynamic: true}}
        - {uuid: count, type: custom, upstream_blocks: [items]}
        """,
    "pipelines/looks/metadata.yaml": """
        variables: {colour: green}
        blocks:
        - {uuid: large, type: custom}
        - {uuid: looks_up, type: custom, upstream_blocks: [large]}
        """,
    "pipelines/loops/metadata.yaml": "blocks:\n- {uuid: asynchronous, type: custom}\n",
    "pipelines/broken/metadata.yaml": "blocks:\n- {uuid: nowhere, type: custom}\n",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("here")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(dedent(text))
    return folder


def test_a_run_is_told_block_by_block(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_pipeline(project, "small", variables={"word": "hello"}, at=NOON).check()
    (line, logged) = run["say"].logs
    assert (run.output("say"), run["say"].outputs, run["say"].tries) == ("HELLO", ("HELLO",), 1)
    assert (line.stream, line.text, logged.stream, logged.level) == ("stdout", "saying", "log", "warning")
    assert run["say"].attempts[0].started_at == NOON == run.began
    assert "saying" in capsys.readouterr().out, "and pytest shows it when the test fails"


def test_retries_and_callbacks_take_no_time_of_ours(project: Path) -> None:
    run = run_pipeline(project, "tries", at=NOON)
    fail = run["fail"]
    assert (run.status, run.took_s, fail.tries) == ("failed", 60.0, 3)
    assert [(a.started_at - NOON).total_seconds() for a in fail.attempts] == [0, 30, 60, 60]
    assert fail.hooks == ["callback:tell:failure"] and "ValueError: never good" in fail.log
    assert fail.error is not None and (fail.error.file, fail.error.line) == ("custom/fail.py", 4)
    with pytest.raises(AssertionError, match=r"fail: failed ValueError: never good \(custom/fail.py:4\)"):
        run.check()


def test_a_sensor_is_poked_by_the_virtual_clock(project: Path) -> None:
    asked: list[datetime] = []

    def ready(*args: Any, **kwargs: Any) -> bool:
        asked.append(clock.now())
        return len(asked) == 4

    run = run_pipeline(project, "waits", at=NOON, replace={"ready": ready}).check()
    gaps = [(after - before).total_seconds() for before, after in pairwise(asked)]
    assert len(gaps) == 3 and all(540 <= gap <= 600 for gap in gaps)
    assert run.took_s == sum(gaps) and run["ready"].tries == 1


def test_a_sensor_that_is_never_met_is_left_waiting(project: Path) -> None:
    run = run_pipeline(project, "waits", within=timedelta(hours=2))
    assert (run.status, run.statuses) == ("running", {"ready": "running", "say": "initial"})
    assert run.took_s == 7200


def test_a_timeout_is_tested_by_saying_how_long_a_block_takes(project: Path) -> None:
    run = run_pipeline(project, "waits", replace={"ready": True}, takes={"say": 61})
    assert (run.statuses["say"], run["say"].attempts[0].outcome) == ("failed", "timeout")
    assert run_pipeline(project, "waits", replace={"ready": True}, takes={"say": 59}).status == "completed"


def test_a_trigger_brings_its_variables_zone_and_timeout(project: Path) -> None:
    def say(*args: Any, **kwargs: Any) -> list[Any]:
        return [kwargs[n] for n in ("word", "ds", "hr", "trigger_name", "interval_seconds")]

    at = datetime(2026, 11, 23, 6, 30, tzinfo=UTC)
    run = run_pipeline(project, "waits", at=at, trigger="mornings", replace={"ready": True, "say": say})
    assert run.output("say") == ["morgen", "2026-11-23", "07", "mornings", 86400]
    late = run_pipeline(project, "waits", at=at, trigger="mornings")
    assert (late.status, late.reason, late.took_s) == ("failed", "timeout", 3600.0)


def test_another_pipeline_runs_too_or_ends_as_the_test_says(project: Path) -> None:
    run = run_pipeline(project, "parent").check()
    (child,) = run.triggered
    assert (run.output("ask"), child.status, child.output("say")) == ("completed", "completed", "CHILD")
    failed = run_pipeline(project, "parent", others={"small": "failed"})
    assert failed.status == "failed" and "small: failed" in str(failed["ask"].error)


def test_secrets_and_variables_are_answered(project: Path) -> None:
    run = run_pipeline(project, "looks", secrets={"token": "hunter22"}).check()
    assert run.output("looks_up") == ["hunter22", None, "green", 100_000]
    asked = run_pipeline(project, "looks", answers={"get_secret_value": lambda payload: payload["name"] * 2})
    assert asked.output("looks_up")[:2] == ["tokentoken", "nobodynobody"]


def test_hooks_and_children_have_stand_ins_too(project: Path) -> None:
    assert run_pipeline(project, "maybe").statuses == {"say": "condition_failed", "count": "condition_failed"}
    run = run_pipeline(project, "maybe", replace={"maybe": True}).check()
    assert run["say"].hooks == ["condition:maybe"]
    fan = run_pipeline(
        project, "fan", replace={"items": [["a", "b"]], "count": lambda item, **_: item * 2}
    ).check()
    assert [child.uuid for child in fan.children("count")] == ["count:0", "count:1"]
    assert (fan.output("count"), fan.output("count:1")) == (["aa", "bb"], "bb")


def test_an_exception_stands_in_as_a_failure(project: Path) -> None:
    for failure in (OSError("no disk"), OSError):
        run = run_pipeline(project, "small", replace={"say": failure})
        assert run["say"].error is not None and run["say"].error.type == "OSError"


def test_a_name_that_is_nobodys_is_refused(project: Path) -> None:
    with pytest.raises(UnknownBlock, match="'sya'"):
        run_pipeline(project, "small", replace={"sya": 1})
    with pytest.raises(PipelineNotFound):
        run_pipeline(project, "smal")
    with pytest.raises(PipelineInvalid, match=r"custom/nowhere\.py"):
        run_pipeline(project, "broken")
    with pytest.raises(InvalidInput, match="time zone"):
        run_pipeline(project, "small", at=datetime(2026, 1, 1))  # noqa: DTZ001
    with pytest.raises(InvalidInput, match="no trigger 'evenings'"):
        run_pipeline(project, "waits", trigger="evenings")


async def test_an_asynchronous_test_may_use_it(project: Path) -> None:
    assert run_pipeline(project, "loops").check().output("asynchronous") is True


def test_what_a_test_has_patched_is_patched_for_the_block(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(project))
    monkeypatch.setattr("utils.words.loud", lambda text: "patched")
    try:
        assert run_pipeline(project, "small").output("say") == "patched"
    finally:
        for name in ("utils.words", "utils"):
            sys.modules.pop(name, None)


def test_an_interrupt_is_not_taken_for_a_failure(project: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_pipeline(project, "small", replace={"say": KeyboardInterrupt()})


def test_nothing_is_left_behind(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = (
        sorted(project.rglob("*")),
        sys.path[:],
        sys.meta_path[:],
        Path.cwd(),
        len([*Path("/proc/self/fd").iterdir()]),
    )
    modules = set(sys.modules)
    run_pipeline(project, "small")
    run_pipeline(project, "parent")
    after = (
        sorted(project.rglob("*")),
        sys.path[:],
        sys.meta_path[:],
        Path.cwd(),
        len([*Path("/proc/self/fd").iterdir()]),
    )
    assert after == before
    assert list(tmp_path.iterdir()) == []
    left = set(sys.modules) - modules
    assert not [name for name in left if name.startswith(("utils", "mage_ai", "_runwright_block"))]
    assert abs(clock.now() - clock.host_now()) < timedelta(minutes=1)


def test_it_has_the_name_of_the_distribution_too() -> None:
    assert runwright.testing.run_pipeline is run_pipeline and runwright.testing.RunReport is RunReport
