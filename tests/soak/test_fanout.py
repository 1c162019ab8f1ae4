"""The proof by kills in short; `python -m tests.soak fanout` is the long one."""

from pathlib import Path

from tests.soak.fanout import Fanout


def test_no_child_of_a_killed_service_is_done_twice_or_forgotten(tmp_path: Path) -> None:
    fanout = Fanout(tmp_path, kills=3, seed=7)
    assert fanout.run() == []
    assert fanout.met, "no kill met a running block: this proves nothing"
