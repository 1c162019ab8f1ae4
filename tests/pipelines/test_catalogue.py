"""The catalogue keeps step with the disk."""

import errno
import os
import shutil
import threading
from dataclasses import replace

import pytest

from app.errors import PipelineInvalid, PipelineNotFound
from app.pipelines.catalogue import Catalogue

GOOD = "blocks: [{uuid: a, type: custom}]\n"


@pytest.fixture
def catalogue(project) -> Catalogue:
    project.blocks("a", "b")
    project.pipeline(GOOD)
    return project.catalogue()


TRIGGER = "triggers:\n- {name: t, schedule_type: time, schedule_interval: '@daily', status: active}\n"


def gone(catalogue: Catalogue) -> bool:
    """Whether a deletion is seen, at the second look and not before."""
    return not catalogue.refresh() and catalogue.refresh()


def test_nothing_is_there_before_the_first_look(project) -> None:
    catalogue = Catalogue(project.root)
    assert (catalogue.entries(), catalogue.triggers(), catalogue.project.name) == ((), (), "shop")
    assert catalogue.refresh()
    assert not catalogue.refresh()


def test_a_pipeline_is_found_or_the_nearest_one_is_named(catalogue: Catalogue) -> None:
    assert catalogue.get("etl").uuid == "etl"
    with pytest.raises(PipelineNotFound) as caught:
        catalogue.get("etk")
    assert caught.value.hint == "Did you mean 'etl'?"
    with pytest.raises(PipelineNotFound):
        catalogue.get("../../etc/passwd\0" * 100)


def test_an_invalid_pipeline_raises_with_file_and_line(project, catalogue: Catalogue) -> None:
    project.pipeline("name: My ETL\ntype: streaming\n")
    assert catalogue.refresh()
    with pytest.raises(PipelineInvalid, match=r"pipelines/etl/metadata\.yaml:2: pipelines of type streaming"):
        catalogue.get("etl")
    (entry,) = catalogue.entries()
    assert (entry.uuid, entry.name, entry.type, entry.pipeline) == ("etl", "My ETL", "streaming", None)


def test_changes_on_disk_are_seen(project, catalogue: Catalogue) -> None:
    assert not catalogue.refresh()
    before = catalogue.get("etl")
    project.pipeline(GOOD.replace("uuid: a", "uuid: b"))
    assert catalogue.refresh()
    assert [block.uuid for block in catalogue.get("etl").blocks] == ["b"]
    assert [block.uuid for block in before.blocks] == ["a"]
    project.pipeline(GOOD, "other")
    assert catalogue.refresh()
    assert [entry.uuid for entry in catalogue.entries()] == ["etl", "other"]
    shutil.rmtree(project.root / "pipelines/etl")
    assert gone(catalogue)
    assert [entry.uuid for entry in catalogue.entries()] == ["other"]
    assert not catalogue.refresh()


def test_a_block_file_that_goes_and_comes_back(project, catalogue: Catalogue) -> None:
    (project.root / "custom/a.py").unlink()
    assert catalogue.refresh()
    with pytest.raises(PipelineInvalid, match="there is no file"):
        catalogue.get("etl")
    project.blocks("a")
    assert catalogue.refresh()
    assert catalogue.get("etl")
    (project.root / "custom/a.py").write_text("something else")
    assert not catalogue.refresh()


def test_triggers_come_and_go(project, catalogue: Catalogue) -> None:
    project.triggers("triggers:\n- {name: t, schedule_type: time, schedule_interval: '@daily'}\n")
    assert catalogue.refresh()
    first = catalogue.triggers()[0].digest
    project.triggers("triggers:\n- {name: t, schedule_type: time, schedule_interval: '@hourly'}\n")
    assert catalogue.refresh()
    assert catalogue.triggers()[0].digest != first
    (project.root / "pipelines/etl/triggers.yaml").unlink()
    assert gone(catalogue)
    assert catalogue.triggers() == ()


@pytest.mark.parametrize("name", ["triggers.yaml", "metadata.yaml"])
def test_a_file_that_is_away_or_empty_for_a_moment_changes_nothing(project, name: str) -> None:
    project.blocks("a")
    project.pipeline(GOOD)
    path = project.triggers(TRIGGER).with_name(name)
    text = path.read_text()
    catalogue = project.catalogue()
    for spoil in (path.unlink, lambda: path.write_text("")):
        spoil()
        assert not catalogue.refresh()
        assert (len(catalogue.entries()), len(catalogue.triggers())) == (1, 1)
        path.write_text(text)
        assert not catalogue.refresh()
        assert not catalogue.refresh()


def test_triggers_of_a_file_that_breaks_are_quarantined_not_gone(project, catalogue: Catalogue) -> None:
    project.triggers(TRIGGER)
    catalogue.refresh()
    (before,) = catalogue.triggers()
    project.triggers(TRIGGER + "- [\n")
    assert catalogue.refresh()
    (broken,) = catalogue.triggers()
    assert broken == replace(before, error=str(catalogue.trigger_errors()[0]))
    assert broken.error.startswith("pipelines/etl/triggers.yaml:4: not valid YAML")
    assert catalogue.unread_triggers() == {"etl"}
    project.triggers(TRIGGER)
    assert catalogue.refresh()
    assert (catalogue.triggers(), catalogue.trigger_errors(), catalogue.unread_triggers()) == (
        (before,),
        (),
        set(),
    )


def test_a_folder_with_triggers_and_no_pipeline_is_no_change_for_ever(project, catalogue: Catalogue) -> None:
    project.write("pipelines/half/triggers.yaml", TRIGGER)
    catalogue.refresh()
    assert not catalogue.refresh()
    project.pipeline(GOOD, "half")
    assert catalogue.refresh()
    assert [trigger.pipeline_uuid for trigger in catalogue.triggers()] == ["half"]


def test_a_second_change_within_one_tick_of_the_disks_clock_is_seen(project, catalogue: Catalogue) -> None:
    path = project.pipeline("description: one\n")
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    assert catalogue.refresh()
    with path.open("r+") as file:  # the same inode, size and time: only another read can tell
        file.write("description: two")
    os.utime(path, ns=times)
    assert catalogue.refresh()
    assert catalogue.entries()[0].description == "two"


def test_only_what_changed_is_parsed_again(project, catalogue: Catalogue) -> None:
    project.pipeline(GOOD, "other")
    catalogue.refresh()
    etl, other = (entry.pipeline for entry in catalogue.entries())
    project.pipeline(GOOD + "name: new\n", "other")
    assert catalogue.refresh()
    assert catalogue.get("etl") is etl
    assert catalogue.get("other") is not other


def test_the_project_file_changes_every_pipeline(project, catalogue: Catalogue) -> None:
    project.write("metadata.yaml", "retry_config: {retries: 7}")
    assert catalogue.refresh()
    assert catalogue.get("etl").blocks[0].retry.retries == 7


def test_a_project_that_was_good_stays_in_force_while_its_file_is_broken(
    project, catalogue: Catalogue
) -> None:
    project.write("metadata.yaml", "retry_config: {retries: 7}")
    catalogue.refresh()
    project.write("metadata.yaml", "retry_config: {retries: seven}")
    assert catalogue.refresh()
    assert str(catalogue.project_error).startswith("metadata.yaml:1: retry_config.retries must be")
    assert catalogue.get("etl").blocks[0].retry.retries == 7
    project.write("metadata.yaml", "retry_config: {retries: 8}")
    assert catalogue.refresh()
    assert (catalogue.project_error, catalogue.project.retry.retries) == (None, 8)


def test_a_project_that_was_never_good_makes_everything_unusable(project) -> None:
    project.write("metadata.yaml", "timezone: Nowhere/Land")
    project.blocks("a")
    project.pipeline(GOOD)
    project.triggers("triggers:\n- {name: t, schedule_type: api}\n")
    catalogue = project.catalogue()
    with pytest.raises(PipelineInvalid, match=r"metadata\.yaml:1: unknown time zone"):
        catalogue.get("etl")
    assert catalogue.triggers()[0].error == str(catalogue.project_error)
    project.write("metadata.yaml", "timezone: Asia/Tokyo")
    assert catalogue.refresh()
    assert catalogue.get("etl").timezone == "Asia/Tokyo"
    assert catalogue.triggers()[0].error is None


def test_folders_that_are_no_pipelines_are_passed_over(project, catalogue: Catalogue, tmp_path) -> None:
    project.write("pipelines/notes.txt", "x")
    project.write("pipelines/empty/readme.md", "x")
    project.write("pipelines/.git/metadata.yaml", GOOD)
    project.write("pipelines/__pycache__/metadata.yaml", GOOD)
    (project.root / "pipelines/dangling").symlink_to(tmp_path / "nothing")
    catalogue.refresh()
    assert [entry.uuid for entry in catalogue.entries()] == ["etl"]


def test_odd_folders_are_entries_with_an_error(project, catalogue: Catalogue, tmp_path) -> None:
    project.pipeline(GOOD, "My Pipeline")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/metadata.yaml").write_text(GOOD)
    (project.root / "pipelines/linked").symlink_to(tmp_path / "elsewhere")
    project.pipeline(GOOD, os.fsdecode(b"caf\xe9"))
    project.pipeline(GOOD, "fifo").unlink()
    os.mkfifo(project.root / "pipelines/fifo/metadata.yaml")
    catalogue.refresh()
    errors = {entry.uuid: entry.error and entry.error.message for entry in catalogue.entries()}
    name = "a pipeline's folder name may hold letters, digits, '_' and '-'"
    assert errors == {
        "My Pipeline": name,
        "caf\\xe9": name,
        "etl": None,
        "fifo": "is not a regular file",
        "linked": "path 'pipelines/linked/metadata.yaml' leads out of the project",
    }
    assert [str(entry.error).encode() for entry in catalogue.entries()]


def test_a_project_without_pipelines_and_one_that_vanishes(project, catalogue: Catalogue) -> None:
    shutil.rmtree(project.root)
    catalogue.refresh()
    assert catalogue.refresh()
    assert catalogue.entries() == ()
    assert not catalogue.refresh()


def test_a_system_that_fails_for_a_while_does_no_lasting_harm(
    project, catalogue: Catalogue, monkeypatch
) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as broken:
        broken.setattr(os, "open", fail)
        broken.setattr(os, "scandir", fail)
        project.pipeline(GOOD + "name: new\n")
        for _ in range(3):
            catalogue.refresh()
            assert str(catalogue.entries()[0].error).endswith("cannot be read: Too many open files")
    assert catalogue.refresh()
    assert catalogue.get("etl").name == "new"


def test_a_comment_in_the_project_file_changes_nothing(project, catalogue: Catalogue) -> None:
    before = catalogue.get("etl")
    project.write("metadata.yaml", "# only a comment")
    assert catalogue.refresh()
    assert catalogue.get("etl") is before


def test_files_that_change_while_they_are_read_do_no_harm(project, catalogue: Catalogue) -> None:
    """A writer rewrites, removes and breaks files as fast as it can; every refresh must survive, the last be right."""
    path, done = project.root / "pipelines/etl/metadata.yaml", threading.Event()

    def write() -> None:
        for number in range(300):
            if number % 7 == 0:
                path.unlink(missing_ok=True)
            path.write_text(GOOD if number % 2 else "blocks: [\n" * 50)
            (project.root / "custom/a.py").unlink(missing_ok=True)
            (project.root / "custom/a.py").write_text("x = 1\n")
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while not done.is_set():
            catalogue.refresh()
            for entry in catalogue.entries():
                assert (entry.pipeline is None) != (entry.error is None)
    finally:
        writer.join()
    catalogue.refresh()
    catalogue.refresh()
    assert catalogue.get("etl").blocks[0].uuid == "a"
