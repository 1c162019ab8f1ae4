"""Named transactions launch and admit, on both databases."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from app import clock
from app.models.pipeline import Limits
from app.models.states import BlockStatus, Cause, RunStatus
from app.scheduler import sync
from app.scheduler.admission import judged
from app.scheduler.limiting import limits_in
from app.store import launch, limits, runs
from app.store.admit import WINDOW, admit
from app.store.db import Tx
from app.store.sql import NODE
from tests.store.conftest import Bench, chain


async def limit(bench: Bench, scope: str, cap: int | None) -> None:
    await bench.db.write(limits.set_limit, scope, cap, now=clock.now())


async def test_a_run_is_claimed_with_its_first_block_in_the_same_transaction(bench: Bench) -> None:
    run, new = await bench.running()
    assert (run.status, run.owner, run.epoch) == (RunStatus.RUNNING, bench.me, 1)
    first, second = await bench.db.read(runs.blocks, run.id)
    assert (first.status, first.attempt, second.status) == (BlockStatus.RUNNING, 1, BlockStatus.INITIAL)
    assert first.attempts[0].node_id == bench.me
    assert first.id == new.blocks[0].id


async def test_without_a_claimer_a_run_waits(bench: Bench) -> None:
    (made,) = await bench.launch(await bench.new(), claim=False)
    assert (made.run.status, made.claimed) == (RunStatus.INITIAL, False)


async def test_a_dedupe_key_makes_one_run(bench: Bench) -> None:
    key = {"dedupe_scope": "s", "dedupe_key": "k"}
    (first,) = await bench.launch(await bench.new(**key))
    (second,) = await bench.launch(await bench.new(**key))
    assert (first.created, second.created) == (True, False)
    assert second.run.id == first.run.id


async def test_more_runs_than_free_slots_wait(bench: Bench) -> None:
    made = await bench.launch(*[await bench.new() for _ in range(3)], free=2)
    assert [m.claimed for m in made] == [True, True, False]


async def test_a_limited_scope_is_admitted_up_to_its_cap(bench: Bench) -> None:
    await limit(bench, "pipeline:etl", 2)
    made = await bench.launch(*[await bench.new() for _ in range(4)])
    states = [(await bench.db.read(runs.get, m.run.id)).status for m in made]  # type: ignore[union-attr]
    assert states.count(RunStatus.RUNNING) == 2
    assert states[:2] == [RunStatus.RUNNING] * 2


async def test_a_blocked_run_blocks_nobody_elsewhere(bench: Bench) -> None:
    await limit(bench, "pipeline:full", 0)
    await bench.launch(*[await bench.new(chain(uuid="full")) for _ in range(3)], claim=False)
    (free,) = await bench.launch(await bench.new(chain(uuid="free")), claim=False)
    admitted = await bench.db.write(admit, bench.claimer(), now=clock.now())
    assert [run.id for run in admitted] == [free.run.id]


async def test_many_blocked_runs_do_not_hide_an_eligible_one(bench: Bench) -> None:
    await limit(bench, "pipeline:full", 0)
    blocked = [await bench.new(chain(1, "full")) for _ in range(WINDOW + 5)]
    await bench.launch(*blocked, claim=False)
    (free,) = await bench.launch(await bench.new(chain(1, "free")), claim=False)
    admitted = await bench.db.write(admit, bench.claimer(), now=clock.now())
    assert [run.id for run in admitted] == [free.run.id]


async def test_admission_is_by_priority_then_age(bench: Bench) -> None:
    low, high, later = [(await bench.new(priority=p)) for p in (0, 5, 0)]
    for new in (low, high, later):
        await bench.launch(new, claim=False)
    admitted = await bench.db.write(admit, bench.claimer(free=2), now=clock.now())
    assert [run.id for run in admitted] == [high.id, low.id]


async def test_claimers_that_race_never_exceed_the_cap(bench: Bench) -> None:
    await limit(bench, "pipeline:etl", 3)
    await bench.launch(*[await bench.new() for _ in range(30)], claim=False)
    others = [await bench.node() for _ in range(4)]
    now = clock.now()
    rounds = (bench.db.write(admit, bench.claimer(free=5, node=node), now=now) for node in others)
    admitted = [run for batch in await asyncio.gather(*rounds) for run in batch]
    assert len(admitted) == 3
    assert len({run.id for run in admitted}) == 3


async def test_a_node_that_is_not_live_claims_nothing(bench: Bench) -> None:
    await bench.launch(await bench.new(), claim=False)

    def drain(tx: Tx) -> None:
        tx.execute(NODE.update().where(NODE.c.id == bench.me).values(state="draining"))

    await bench.db.write(drain)
    assert await bench.db.write(admit, bench.claimer(), now=clock.now()) == []


async def test_a_raised_limit_lets_waiting_runs_in(bench: Bench) -> None:
    await limit(bench, "pipeline:etl", 0)
    await bench.launch(await bench.new(), claim=False)
    assert await bench.db.write(admit, bench.claimer(), now=clock.now()) == []
    await limit(bench, "pipeline:etl", None)
    assert len(await bench.db.write(admit, bench.claimer(), now=clock.now())) == 1


async def test_a_run_that_is_cancelled_at_birth_after_its_sla_says_so(bench: Bench) -> None:
    ended = (RunStatus.CANCELLED, "pipeline_run_limit")
    times = [clock.now() - timedelta(minutes=1), clock.now() + timedelta(hours=1)]
    made = await bench.launch(*[replace(await bench.new(sla_at=at), ended=ended) for at in times])
    assert [(m.run.passed_sla, m.run.sla_passed_at is not None) for m in made] == [
        (True, True),
        (False, False),
    ]


async def test_a_limit_above_a_thousand_is_kept_at_birth_too(bench: Bench) -> None:
    await limit(bench, "pipeline:etl", 1_001)
    await bench.launch(*[await bench.new(chain(1)) for _ in range(1_000)], claim=False)
    by = judged("etl", None, {}, Limits(on_pipeline_run_limit_reached="cancel"), Cause.API)
    fates = [await bench.launch(replace(await bench.new(chain(1)), judged=by), claim=False) for _ in range(2)]
    assert [made.run.status for (made,) in fates] == [RunStatus.INITIAL, RunStatus.CANCELLED]


@pytest.mark.parametrize("starts", ["launch", "admit"])
async def test_a_new_limit_waits_for_the_starts_that_have_not_seen_it(bench: Bench, starts: str) -> None:
    new = await bench.new()
    if starts == "admit":
        await bench.launch(new, claim=False)

    def start(tx: Tx) -> None:
        now = clock.now()
        if starts == "admit":
            admit(tx, bench.claimer(), now=now)
        else:
            launch.launch(tx, [new], bench.claimer(), now=now)

    def limited(tx: Tx) -> bool:
        return limits.set_limit(tx, "pipeline:etl", 0, now=clock.now())

    assert await bench.cross(start, limited) == (None, True, True)
    run = await bench.db.read(runs.get, new.id)
    assert run is not None and run.status is RunStatus.RUNNING


async def test_a_new_run_does_not_jump_the_queue(bench: Bench) -> None:
    (earlier,) = await bench.launch(await bench.new(), claim=False)
    (made,) = await bench.launch(await bench.new(first=True), free=1)
    assert (made.claimed, made.run.status) == (False, RunStatus.INITIAL)
    run = await bench.db.read(runs.get, earlier.run.id)
    assert run is not None and run.owner == bench.me


async def test_runs_that_a_full_scope_holds_back_are_counted_as_left(bench: Bench) -> None:
    await limit(bench, "global", 1)
    await bench.launch(*[await bench.new() for _ in range(12)], claim=False)
    claimer = bench.claimer(free=3)  # fewer slots than runs wait: the first look fills its window
    assert len(await bench.db.write(admit, claimer, now=clock.now())) == 1
    again = bench.claimer(free=3)
    assert await bench.db.write(admit, again, now=clock.now()) == []
    assert again.left > 0, "else nobody looks again when the running one ends"


def _by(bench: Bench) -> sync.By:
    return sync.By(bench.me, clock.now(), "sunday", limits_in([]))


async def test_whoever_locks_scopes_never_waits_in_a_circle(bench: Bench) -> None:
    """Launches that are judged, edits of their triggers, changes of limits and admissions, all at once."""
    triggers = [9, 10, 11]  # their scopes sort as 10, 11, 9
    for number in triggers:
        await bench.db.write(sync.put, number, _api_trigger(number), by=_by(bench), new=True)
    by = {n: judged("etl", n, {"pipeline_run_limit": 2}, Limits(), Cause.API) for n in triggers}

    async def launch(number: int) -> None:
        new = [await bench.new(pipeline_schedule_id=n) for n in (number, 9, 10)]
        await bench.launch(*[replace(run, judged=by[run.values["pipeline_schedule_id"]]) for run in new])

    async def edit(number: int) -> None:
        values = {"settings": {"pipeline_run_limit": 2}, "description": str(clock.now())}
        await bench.db.write(sync.put, number, values, by=_by(bench))

    async def admission(_number: int) -> None:
        await bench.db.write(admit, bench.claimer(free=2), now=clock.now())

    async def raised(number: int) -> None:
        await limit(bench, "global", 50 + number)

    for _ in range(4):
        await asyncio.gather(*(do(n) for n in triggers for do in (launch, edit, admission, raised)))
    assert await bench.db.read(_deadlocks) == 0


def _api_trigger(number: int) -> dict[str, Any]:
    return {
        "name": f"t{number}",
        "pipeline_uuid": "etl",
        "description": None,
        "schedule_type": "api",
        "schedule_interval": None,
        "timezone": None,
        "status": "active",
        "start_time": None,
        "variables": {},
        "settings": {"pipeline_run_limit": 2},
        "tags": [],
        "error": None,
        "managed_by": "api",
    }


def _deadlocks(tx: Tx) -> int:
    if tx.dialect.name != "postgresql":
        return 0  # one writer
    counted = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    return int(tx.execute(text(counted)).scalar_one())
