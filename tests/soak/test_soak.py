"""The soak in short; `make soak` is the long one."""

from pathlib import Path

from tests.soak.soak import Soak


def test_a_service_that_is_killed_again_and_again_keeps_every_promise(tmp_path: Path) -> None:
    soak = Soak(tmp_path, kills=3, seed=7, longest_s=1.5)
    assert soak.run() == []
    assert soak.recovery_s, "no kill met a running block: the soak proves nothing"
