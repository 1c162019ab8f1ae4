"""The file that a long proof leaves."""

from pathlib import Path

import pytest

from tests.report import report


def test_what_is_printed_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REPORTS", str(tmp_path / "new"))
    with report("proof") as path:
        print("12 kills")
    lines = path.read_text().splitlines()
    assert lines[0].startswith("proof") and "12 kills" in lines and lines[-1].startswith("0 s, load ")
    assert capsys.readouterr().out == f"12 kills\nreport: {path}\n"


def test_what_was_printed_before_a_failure_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPORTS", str(tmp_path))
    with pytest.raises(RuntimeError), report("proof"):
        print("3 kills")
        raise RuntimeError
    (path,) = tmp_path.iterdir()
    assert "3 kills" in path.read_text()
