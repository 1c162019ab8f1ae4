"""The scenarios: a place of the engine or the store, what happens there, and in which life."""

from dataclasses import dataclass
from pathlib import Path

from app.failpoints import MOMENTS, STEPS, TRANSACTIONS
from tests.failpoints.scene import Scene

#: places that only a life after a stop comes to
LATER = ("takeover", "takeover_parked")
#: places that are not come to without another fault before
WITH = {"abort": "attempt.result_received=error@2", "retake": "launch.after_commit=error"}


@dataclass(frozen=True)
class Scenario:
    """Rules for the first life, or (`later`) for the second."""

    rules: str
    place: str
    later: bool = False
    excused: bool = False

    @property
    def name(self) -> str:
        return self.rules.replace("; ", "+")


def scenario(place: str, what: str) -> Scenario:
    """What is to happen at a place, with what it takes to come there."""
    name = place.partition(".")[0]
    rules = [WITH[name]] if name in WITH else []
    rules.append(f"{place}={what}")
    excused = name == "abort" or (place == "attempt.result_received" and what.startswith("error"))
    return Scenario("; ".join(rules), place, later=name in LATER, excused=excused)


def everything() -> list[Scenario]:
    """Every place with everything that can happen there."""
    found = []
    for name in (*TRANSACTIONS.values(), *STEPS):
        for moment in MOMENTS:
            doubt = name in STEPS and moment == "after_commit"
            modes = ["kill", "pause(0.2)"] if doubt else ["kill", "error", "pause(0.2)"]
            if name in ("start", "finish", "close"):
                modes.append("kill@3")
            # A start that fails is the end of that start, and nothing goes on: the next one is another process.
            found += [scenario(f"{name}.{moment}", m) for m in modes if not (name == "join" and m == "error")]
    place = "attempt.result_received"
    return found + [scenario(place, m) for m in ("kill", "kill@4", "error", "pause(0.2)")]


def few() -> list[Scenario]:
    """Those of the suite: a death at every place, and a few of the others."""
    steps = [scenario(f"{step}.after_commit", "kill") for step in STEPS]
    names = (
        "launch",
        "admit",
        "tick",
        "cancel",
        "takeover",
        "takeover_parked",
        "answer",
        "hand_over",
        "sync",
    )
    inside = [scenario(f"{name}.before_commit", "kill") for name in ("launch", "tick", "takeover", "finish")]
    behind = [scenario(f"{name}.after_commit", "kill") for name in names]
    doubt = [
        scenario(f"{name}.after_commit", "error")
        for name in ("launch", "admit", "tick", "takeover", "cancel")
    ]
    refused = [scenario(f"{name}.before_commit", "error") for name in ("launch", "finish", "retake")]
    return steps + inside + behind + doubt + refused + [scenario("attempt.result_received", "kill@4")]


async def play(scenario: Scenario, folder: Path, url: str) -> list[str]:
    """Play a scenario on a migrated database; all that is wrong."""
    scene = Scene(folder, url, excused=scenario.excused)
    points = await scene.live("" if scenario.later else scenario.rules)
    then = await scene.live(scenario.rules if scenario.later else "")
    if then.dead or scene.refused:
        await scene.live()
    struck = (then if scenario.later else points).struck
    found = await scene.verdict()
    return (
        found if scenario.place in struck else [*found, f"never came to {scenario.place}, only to {struck}"]
    )
