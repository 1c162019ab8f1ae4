"""The scenarios on replicas in short; `make soak` plays the long ones."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.postgres import serving
from tests.soak.frozen import Freezes
from tests.soak.hands import Hands
from tests.soak.limit import CAP, Limit
from tests.soak.outage import Outage, wired
from tests.soak.replicas import Kills
from tests.soak.stage import Stage

MakeStage = Callable[..., Stage]


@pytest.fixture
def make_stage(tmp_path: Path, blank_postgres_url: str) -> MakeStage:
    def make(**more: object) -> Stage:
        given = {"folder": tmp_path, "database": blank_postgres_url, "seed": 11, "timed": False}
        return Stage(**{**given, **more})  # type: ignore[arg-type]

    return make


def test_killed_replicas_lose_no_run_and_run_no_block_twice_at_once(make_stage: MakeStage) -> None:
    kills = Kills(make_stage(replicas=2, lease_s=3), kills=2, every_s=2, runs=30)
    assert kills.run() == []
    assert len(kills.died) == 2


def test_a_frozen_replica_changes_nothing_when_it_thaws(make_stage: MakeStage) -> None:
    freezes = Freezes(make_stage(replicas=2, lease_s=5), times=1, per_s=4)
    assert freezes.run() == []


def test_killed_workers_and_wardens_cost_tries_and_no_run(make_stage: MakeStage) -> None:
    hands = Hands(make_stage(replicas=1), kills=5, per_s=6)
    assert hands.run() == []
    assert (hands.workers, hands.wardens) == (4, 1)


def test_three_at_once_are_three_on_all_nodes_together(make_stage: MakeStage) -> None:
    limit = Limit(make_stage(replicas=2), runs=60, starters=8)
    assert limit.run() == []
    assert limit.most == CAP


def test_a_database_that_crashes_and_loses_answers_loses_and_doubles_nothing(
    make_stage: MakeStage,
) -> None:
    with serving() as server:  # of its own: the session's is for others as well
        url = server.url(server.create())
        with wired(url) as wire:
            stage = make_stage(database=url, seen=wire.url, replicas=2, lease_s=20)
            assert Outage(stage, wire, server.restart, restarts=1, losses=6, runs=30, seconds=5).run() == []
            assert wire.lost >= 6
