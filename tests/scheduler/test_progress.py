"""How a run goes on, as pure functions."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from app.executors.base import BlockResult
from app.models.pipeline import Block, BlockType, Pipeline, RetryPolicy
from app.models.states import BLOCK_TERMINAL, BlockStatus, Outcome, RunStatus
from app.scheduler import progress

B = BlockStatus
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def graph(edges: dict[str, list[str]]) -> Pipeline:
    return Pipeline(
        "p", tuple(Block(u, BlockType.CUSTOM, f"{u}.py", upstream=tuple(up)) for u, up in edges.items())
    )


@st.composite
def graphs(draw: st.DrawFn) -> Pipeline:
    names = [f"b{i}" for i in range(draw(st.integers(1, 8)))]
    edges = {
        name: sorted(draw(st.sets(st.sampled_from(names[:i]), max_size=3))) if i else []
        for i, name in enumerate(names)
    }
    return graph(edges)


@given(graphs(), st.booleans(), st.data())
def test_every_run_ends_whatever_its_blocks_do(pipeline: Pipeline, allow: bool, data: st.DataObject) -> None:
    statuses = dict.fromkeys(pipeline.by_uuid, B.INITIAL)
    for _ in range(len(statuses) + 1):
        for uuid, (status, _reason) in progress.fallout(
            pipeline, statuses, allow_blocks_to_fail=allow
        ).items():
            assert statuses[uuid] in (B.INITIAL, B.QUEUED), "only what has not started falls out"
            statuses[uuid] = status
        ready = progress.ready(pipeline, statuses)
        if B.FAILED in statuses.values() and not allow:
            assert ready == []
        if not ready:
            break
        for uuid in ready:
            statuses[uuid] = data.draw(st.sampled_from([B.COMPLETED, B.FAILED, B.SKIPPED]))
    assert all(status in BLOCK_TERMINAL for status in statuses.values())
    end = progress.roll_up(statuses)
    assert end is not None
    failed = B.FAILED in statuses.values()
    assert end[0] is (RunStatus.FAILED if failed else RunStatus.COMPLETED)


@given(graphs(), st.data())
def test_made_ready_finds_each_block_exactly_once(pipeline: Pipeline, data: st.DataObject) -> None:
    statuses = dict.fromkeys(pipeline.by_uuid, B.INITIAL)
    started = list(progress.ready(pipeline, statuses))
    running = list(started)
    while running:
        uuid = running.pop(data.draw(st.integers(0, len(running) - 1)))
        statuses[uuid] = B.COMPLETED
        new = progress.made_ready(pipeline, statuses, [uuid])
        running += new
        started += new
    assert sorted(started) == sorted(pipeline.by_uuid)


def judge(outcome: Outcome, *, retries: int = 0, charged: int = 0, lost: int = 0) -> progress.Judgement:
    block = Block("b", BlockType.CUSTOM, "b.py", retry=RetryPolicy(retries=retries))
    return progress.judge(block, BlockResult(outcome), charged=charged, lost=lost, started_at=NOW, now=NOW)


def test_a_failure_is_tried_again_within_the_budget() -> None:
    again = judge(Outcome.FAILED, retries=1, charged=1)
    assert (again.status, again.wake_at) == (B.QUEUED, NOW + timedelta(seconds=5))
    assert judge(Outcome.CRASHED, retries=1, charged=2).status is B.FAILED
    assert judge(Outcome.TIMEOUT, charged=1).status is B.FAILED


def test_a_loss_is_not_charged() -> None:
    assert judge(Outcome.LOST, lost=1) == progress.Judgement(B.QUEUED, reason="worker lost")
    assert judge(Outcome.LOST, lost=progress.MAX_LOST).status is B.FAILED


def test_who_was_lost_together_again_and_again_comes_back_apart() -> None:
    """A block that kills the warden takes its neighbours along; they must not run out of their budget with it."""
    block = Block("b", BlockType.CUSTOM, "b.py")
    for lost in range(2, progress.MAX_LOST):
        times = {
            progress.judge(
                block, BlockResult(Outcome.LOST), charged=0, lost=lost, started_at=NOW, now=NOW, seed=seed
            ).wake_at
            for seed in range(10)
        }
        assert len(times) == 10
        assert all(at is not None and NOW < at <= NOW + timedelta(seconds=8) for at in times)


def test_a_cancelled_attempt_is_not_tried_again() -> None:
    assert judge(Outcome.CANCELLED, retries=9, charged=0).status is B.CANCELLED


def sensor(timeout_s: float | None = None, **configuration: object) -> Block:
    return Block("s", BlockType.SENSOR, "s.py", timeout_s=timeout_s, configuration=configuration)


def test_a_sensor_that_is_false_waits_a_minute_by_default() -> None:
    result = BlockResult(Outcome.COMPLETED, value_false=True)
    found = progress.judge(sensor(), result, charged=0, lost=0, started_at=NOW, now=NOW)
    assert (found.status, found.waiting, found.wake_at) == (B.RUNNING, True, NOW + timedelta(seconds=60))
    assert progress.poke_interval_s(sensor(interval=2)) == 2
    assert progress.poke_interval_s(sensor(interval="soon")) == 60


def test_sensors_that_began_together_are_poked_apart() -> None:
    result = BlockResult(Outcome.COMPLETED, value_false=True)
    wakes = {
        progress.judge(sensor(), result, charged=0, lost=0, started_at=NOW, now=NOW, seed=seed).wake_at
        for seed in range(1000)
    }
    assert len(wakes) == 1000
    assert min(w for w in wakes if w) >= NOW + timedelta(seconds=54)
    assert max(w for w in wakes if w) <= NOW + timedelta(seconds=60)


def test_a_sensor_times_out_counted_from_its_first_start() -> None:
    result = BlockResult(Outcome.COMPLETED, value_false=True)
    late = NOW + timedelta(seconds=31)
    found = progress.judge(sensor(30), result, charged=0, lost=0, started_at=NOW, now=late)
    assert found.status is B.FAILED
