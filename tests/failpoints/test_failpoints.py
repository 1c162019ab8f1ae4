"""The engine dies, or the database fails it, at named places; in the end everything asked for has happened once.

`python -m tests.failpoints` plays all there are, on both databases. On SQLite alone here: what differs on Postgres
(the answer to a commit that is lost) has tests of its own.
"""

import asyncio
from pathlib import Path

import pytest

from app import failpoints
from app.errors import StartRefused
from app.failpoints import FailpointError, Failpoints, Rule, parse
from app.scheduler.build import build_engine
from app.settings import Settings
from tests.failpoints.catalogue import Scenario, everything, few, play
from tests.failpoints.scene import Effect, Scene


@pytest.mark.parametrize("scenario", few(), ids=lambda s: s.name)
async def test_what_was_acknowledged_happens_once_whatever_dies_where(
    scenario: Scenario, sqlite_url: str, tmp_path: Path
) -> None:
    assert await play(scenario, tmp_path / "scene", sqlite_url) == []


async def test_on_postgres_too(postgres_url: str, tmp_path: Path) -> None:
    (scenario,) = [s for s in everything() if s.name == "takeover.after_commit=kill"]
    assert await play(scenario, tmp_path / "scene", postgres_url) == []


async def test_the_verdict_sees_what_is_lost_what_is_doubled_and_what_is_unseen(
    sqlite_url: str, tmp_path: Path
) -> None:
    scene = Scene(tmp_path / "scene", sqlite_url)
    await scene.live()
    assert any("is running" in what for what in await scene.verdict()), "two runs wait for the second life"
    await scene.live()
    assert await scene.verdict() == []
    begun = next(effect for effect in scene.effects if effect.kind == "begin")
    scene.effects.append(begun)
    assert any("ran twice" in what for what in await scene.verdict())
    scene.effects.append(Effect(2, 1, "x", 999, 1, "begin"))
    assert any("not on record" in what for what in await scene.verdict())
    scene.effects.append(Effect(2, 1, "x", 999, 2, "begin"))
    assert any("overlaps" in what for what in await scene.verdict())
    scene.effects[:] = [effect for effect in scene.effects if effect.block_run != begun.block_run]
    assert any("never ran" in what for what in await scene.verdict())
    scene.acknowledged["1"] = 999
    assert any("was answered 999" in what for what in await scene.verdict())


def test_rules_are_read() -> None:
    assert parse(" launch.after_commit=kill@3; tick.before_commit=error@2+ ,loop=stall(15)") == (
        Rule("launch.after_commit", "kill", nth=3),
        Rule("tick.before_commit", "error", nth=2, on=True),
        Rule("loop", "stall", 15.0),
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("launch.after_commit", "is no failpoint"),
        ("launch.after_commit=burn", "is no failpoint"),
        ("launch.after_commit=kill@0", "is no failpoint"),
        ("lunch.after_commit=kill", "there is no failpoint 'lunch.after_commit'; there are: abort."),
        ("loop=stall", "need seconds"),
        ("loop=kill(3)", "the others have none"),
        ("start.after_commit=error", "never in doubt"),
    ],
)
def test_a_rule_that_would_never_apply_is_refused(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told.replace(".", r"\.")):
        parse(text)


async def test_what_happens_at_a_place() -> None:
    deaths: list[str] = []
    points = Failpoints(
        parse("loop=error@2; tick.before_commit=pause(0.01); launch.before_commit=kill"),
        kill=lambda: deaths.append("x"),
    )
    await points.reach("loop")
    with pytest.raises(FailpointError, match="loop"):
        await points.reach("loop")
    points.hit("tick.before_commit")
    with pytest.raises(KeyError):
        points.hit("launch.before_commit", KeyError)
    assert points.struck == ["loop", "tick.before_commit", "launch.before_commit"]
    assert deaths == ["x"] and points.dead
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(points.reach("loop"), 0.01)  # the dead come to nothing any more


def test_failpoints_are_for_tests(tmp_path: Path) -> None:
    (tmp_path / "metadata.yaml").write_text("name: p\n")
    given = {"project": tmp_path, "failpoints": "loop=kill"}
    with pytest.raises(StartRefused, match="RUNWRIGHT_FAILPOINTS is set"):
        build_engine(Settings(**given))
    with pytest.raises(StartRefused, match="there is no failpoint"):
        build_engine(Settings(**{**given, "failpoints": "x=kill"}, testing=True))
    assert failpoints.armed is None
