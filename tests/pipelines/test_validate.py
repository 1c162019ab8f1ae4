"""What `validate` says, and the doctests of the package."""

import doctest
import importlib
import pkgutil

import app.pipelines
from app.pipelines.validate import findings


def test_a_clean_project_has_no_findings(project) -> None:
    project.blocks("a")
    project.pipeline("blocks: [{uuid: a, type: custom}]\n")
    project.triggers("triggers:\n- {name: t, schedule_type: time, schedule_interval: '@daily'}\n")
    assert findings(project.catalogue()) == []


def test_everything_that_is_wrong_is_found_at_once(project) -> None:
    project.write("metadata.yaml", "description: \"{{ env_var('NONE') }}\"\n")
    project.write("custom/a.py", "def f(:\n    pass\n")
    project.write("custom/odd.py", "x = '\\d'\n")
    project.pipeline("blocks:\n- {uuid: a, type: custom, executor_type: k8s}\n- {uuid: odd, type: custom}\n")
    project.triggers("triggers:\n- {name: t, schedule_type: time, schedule_interval: nonsense}\n- {}\n")
    project.pipeline("type: streaming\n", "flow")
    found = [(finding.level, str(finding).partition(": ")[0]) for finding in findings(project.catalogue())]
    assert found == [
        ("error", "pipelines/flow/metadata.yaml:1"),
        ("error", "pipelines/etl/triggers.yaml:3"),
        ("error", "custom/a.py:1"),
        ("error", "pipelines/etl/triggers.yaml:2"),
        ("warning", "metadata.yaml"),
        ("warning", "pipelines/etl/metadata.yaml:2"),
    ]


def test_files_that_nothing_reads_are_named(project) -> None:
    project.write("global_hooks.yaml", "resources: {}\n")
    assert [str(finding) for finding in findings(project.catalogue())] == [
        "global_hooks.yaml: global hooks are not supported;"
        " the guide 'What Runwright does not do' says what to use instead"
    ]


def test_a_broken_project_file_is_one_finding(project) -> None:
    project.write("metadata.yaml", "a: [\n")
    project.pipeline("blocks: []\n")
    project.triggers("triggers:\n- {name: t, schedule_type: api}\n")
    (finding,) = findings(project.catalogue())
    assert (finding.level, finding.file, finding.line) == ("error", "metadata.yaml", 2)


def test_the_examples_in_the_docstrings() -> None:
    modules = [
        importlib.import_module(f"app.pipelines.{info.name}")
        for info in pkgutil.iter_modules(app.pipelines.__path__)
    ]
    results = [doctest.testmod(module) for module in modules]
    assert sum(result.failed for result in results) == 0
    assert sum(result.attempted for result in results) > 0
