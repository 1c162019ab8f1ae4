"""What the log says when definitions break and are mended."""

import logging

import pytest

from app.pipelines.faultlog import FaultLog

GOOD = "blocks: [{uuid: a, type: custom}]\n"
TRIGGER = "triggers:\n- {name: t, schedule_type: time, schedule_interval: '%s'}\n"


def test_each_fault_is_told_once_and_so_is_its_end(project, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    project.blocks("a")
    project.pipeline(GOOD)
    project.pipeline("blocks: 5\n", "other")
    project.triggers(TRIGGER % "61 * * * *")
    catalogue, faults = project.catalogue(), FaultLog()

    def told() -> list[tuple[str, str]]:
        caplog.clear()
        catalogue.refresh()
        faults.look(catalogue)
        return [(record.levelname, record.getMessage()) for record in caplog.records]

    pipeline, trigger = told()
    assert (
        pipeline[0] == "WARNING" and "pipelines/other/metadata.yaml:1: blocks must be a list" in pipeline[1]
    )
    assert trigger[0] == "WARNING" and "pipelines/etl/triggers.yaml:2: '61 * * * *'" in trigger[1]
    assert told() == []
    project.pipeline(GOOD, "other")
    project.triggers(TRIGGER % "1 * * * *")
    assert sorted(told()) == [
        ("INFO", "no fault any more: pipelines/etl/triggers.yaml, trigger 't'"),
        ("INFO", "no fault any more: pipelines/other/metadata.yaml"),
    ]


def test_a_broken_project_is_told_once_and_not_for_each_pipeline(
    project, caplog: pytest.LogCaptureFixture
) -> None:
    project.write("metadata.yaml", "name: [\n")
    project.pipeline(GOOD)
    project.pipeline(GOOD, "other")
    project.triggers(TRIGGER % "@daily")
    FaultLog().look(project.catalogue())
    assert [record.getMessage() for record in caplog.records] == [
        "not usable: metadata.yaml:2: not valid YAML: while parsing a flow node did not find expected node content"
    ]
