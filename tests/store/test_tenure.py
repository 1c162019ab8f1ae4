"""What a node concludes from its renewals: when it must be gone, whom it may judge, whether a clock has jumped."""

from datetime import UTC, datetime, timedelta

import pytest

from app.store.tenure import JUMP_S, Tenure

START = datetime(2026, 3, 1, tzinfo=UTC)
LEASE_S = 20.0


def tenure() -> Tenure:
    return Tenure(LEASE_S, since=100.0, renewed=100.0, database=START, at=100.0)


def at(seconds: float) -> datetime:
    """What a database clock shows that does not jump, at a steady time."""
    return START + timedelta(seconds=seconds - 100.0)


def renewed(held: Tenure, seconds: float, *, jumped: float = 0.0, took: float = 0.0) -> timedelta:
    answer = at(seconds + took / 2) + timedelta(seconds=jumped)
    return held.renew(seconds, seconds + took, answer)


def test_a_node_is_gone_before_its_lease_is() -> None:
    held = tenure()
    assert (held.left_s(100.0), held.left_s(107.0), held.left_s(112.0)) == (12.0, 5.0, 0.0)


def test_a_renewal_counts_from_when_it_was_sent() -> None:
    held = tenure()
    renewed(held, 105.0, took=4.0)
    assert held.left_s(109.0) == pytest.approx(105.0 + 12.0 - 109.0)


def test_only_who_has_held_a_whole_lease_judges_others() -> None:
    held = tenure()
    for seconds in (105.0, 110.0, 115.0):
        renewed(held, seconds)
        assert held.judges(seconds) is None
    renewed(held, 120.0)
    assert held.judges(121.0) == at(121.0)


def test_a_node_that_must_be_gone_judges_nobody() -> None:
    held = tenure()
    for seconds in (105.0, 110.0, 115.0, 120.0):
        renewed(held, seconds)
    assert held.judges(131.9) is not None
    assert held.judges(132.0) is None


def test_a_database_clock_that_jumps_ahead_gives_everybody_a_whole_lease_to_renew_in() -> None:
    held = tenure()
    for seconds in (105.0, 110.0, 115.0, 120.0):
        renewed(held, seconds)
    day = timedelta(days=1)
    assert held.judges(124.0) == at(124.0), (
        "until it is seen, the reckoning is the old one: it condemns nobody"
    )
    assert renewed(held, 125.0, jumped=day.total_seconds()) == day
    assert day > timedelta(seconds=JUMP_S)
    assert held.judges(126.0) is None
    for seconds in (130.0, 135.0, 140.0, 145.0):
        renewed(held, seconds, jumped=day.total_seconds())
    assert held.judges(146.0) == at(146.0) + day


def test_a_database_clock_that_steps_back_ends_no_tenure() -> None:
    held = tenure()
    for seconds in (105.0, 110.0, 115.0, 120.0):
        renewed(held, seconds)
    hour = timedelta(hours=1)
    assert renewed(held, 125.0, jumped=-hour.total_seconds()) == -hour
    assert held.judges(126.0) == at(126.0) - hour
    assert held.left_s(126.0) == 11.0


def test_a_slow_answer_is_no_jump() -> None:
    held = tenure()
    for seconds in (105.0, 110.0, 115.0, 120.0):
        renewed(held, seconds)
    held.renew(121.0, 126.0, at(125.9))  # the database looked at its clock late in a long round trip
    assert held.judges(127.0) is not None
