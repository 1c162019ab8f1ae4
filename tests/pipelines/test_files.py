"""Nothing outside the project is opened, and nothing that could hang."""

import os
from pathlib import Path

import pytest

from app.pipelines.files import MAX_BYTES, is_file, read_text, signature
from app.pipelines.problems import BadDefinition


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "project/folder").mkdir(parents=True)
    (tmp_path / "project/a.yaml").write_text("a: 1")
    (tmp_path / "secret.yaml").write_text("password: x")
    return tmp_path / "project"


def fault(root: Path, relative: str) -> str:
    with pytest.raises(BadDefinition) as caught:
        read_text(root, relative)
    return caught.value.error.message


def test_a_file_is_read_with_its_signature(root: Path) -> None:
    assert read_text(root, "a.yaml") == ("a: 1", signature(str(root / "a.yaml")))
    (root / "bom.yaml").write_bytes(b"\xef\xbb\xbfa: 1")
    assert read_text(root, "bom.yaml")[0] == "a: 1"


@pytest.mark.parametrize(
    "path",
    ["../secret.yaml", "folder/../../secret.yaml", "/etc/passwd", "~/x", "", "a\0b", "folder/../a.yaml"],
)
def test_a_path_that_could_leave_the_project_is_refused(root: Path, path: str) -> None:
    assert "must be relative and stay inside the project" in fault(root, path)


def test_a_link_may_lead_inside_but_not_out(root: Path, tmp_path: Path) -> None:
    (root / "inside.yaml").symlink_to(root / "a.yaml")
    (root / "outside.yaml").symlink_to(tmp_path / "secret.yaml")
    (root / "out").symlink_to(tmp_path)
    (root / "neighbour").symlink_to(tmp_path / "project2")
    assert read_text(root, "inside.yaml")[0] == "a: 1"
    assert "leads out of the project" in fault(root, "outside.yaml")
    assert "leads out of the project" in fault(root, "out/secret.yaml")
    assert "leads out of the project" in fault(root, "neighbour")


def test_what_is_no_regular_file_is_refused_without_waiting(root: Path) -> None:
    os.mkfifo(root / "fifo.yaml")
    assert fault(root, "fifo.yaml") == "is not a regular file"
    assert fault(root, "folder") == "is not a regular file"
    assert [is_file(root, name) for name in ("a.yaml", "fifo.yaml", "folder", "nothing", "a.yaml/b")] == [
        True,
        False,
        False,
        False,
        False,
    ]


def test_a_link_to_itself_is_refused(root: Path) -> None:
    (root / "loop.yaml").symlink_to("loop.yaml")
    assert "leads nowhere" in fault(root, "loop.yaml")
    assert not is_file(root, "loop.yaml")


def test_size_and_encoding_are_checked(root: Path) -> None:
    (root / "big.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
    (root / "latin.yaml").write_bytes(b"a: 1\nb: caf\xe9\n")
    assert fault(root, "big.yaml") == "is larger than 1 MiB"
    with pytest.raises(BadDefinition) as caught:
        read_text(root, "latin.yaml")
    assert str(caught.value.error) == "latin.yaml:2: is not UTF-8 text"


def test_a_file_that_is_not_there_is_told_apart(root: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_text(root, "nothing.yaml")
    assert signature(str(root / "nothing.yaml")) is None
