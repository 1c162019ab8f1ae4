"""Triggers made, changed and fired by callers, on both databases; the invariants hold at the end of each."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from app import clock
from app.errors import (
    InvalidInput,
    ManagedByFile,
    NameTaken,
    NotFound,
    PreconditionFailed,
    Quarantined,
    RunwrightError,
    ScheduleNotFound,
)
from app.models.rows import ScheduleRow
from app.models.states import Cause, RunStatus, ScheduleStatus
from app.scheduler.engine import Engine
from app.scheduler.triggers import TriggerDraft, hash_of
from app.store import limits, runs, schedules, slots
from app.store.idempotency import Idempotency
from app.store.sql import SCHEDULE
from tests.engine.conftest import World, until
from tests.engine.triggers import age, ledger, look, make


async def made_with_token(engine: Engine, **values: Any) -> tuple[ScheduleRow, str]:
    draft = TriggerDraft(
        pipeline_uuid="etl", name="hook", schedule_type="api", **{"status": "active", **values}
    )
    row, token = await engine.triggers.create(draft)
    assert token is not None
    return row, token


async def test_a_trigger_that_was_made_fires_by_itself(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving(scheduling=True) as engine:
        row = await make(engine, schedule_interval="* * * * * *", variables={"x": 1})
        assert (row.revision, row.managed_by) == (1, "api")
        await until(lambda: len(world.executor.calls) >= 2)
        newest = (await engine.db.read(runs.page, limit=1))[0]
        assert (newest.cause, newest.variables) == (Cause.TICK, {"x": 1})
        assert newest.pipeline_schedule_id == row.id
        # Edited while it fires: every slot of either definition has its row, which the invariants say.
        for description in "abc":
            await asyncio.sleep(0.3)
            await engine.triggers.update(row.id, {"description": description, "timezone": "Europe/Berlin"})
        await engine.triggers.update(row.id, {"schedule_interval": "*/2 * * * * *"})
        await engine.triggers.pause(row.id)


@pytest.mark.parametrize(
    ("draft", "pointer"),
    [
        ({"schedule_interval": "61 * * * *"}, "/schedule_interval"),
        ({"schedule_interval": None}, "/schedule_interval"),
        ({"schedule_interval": "@never"}, "/schedule_interval"),
        ({"timezone": "Europe/Berln"}, "/timezone"),
        ({"status": "paused"}, "/status"),
        ({"schedule_type": "often"}, "/schedule_type"),
        ({"settings": {"landing_time_enabled": True}}, "/settings/landing_time_enabled"),
        ({"settings": {"pipeline_run_limt": 1}}, "/settings/pipeline_run_limt"),
        ({"settings": {"pipeline_run_limit": -1}}, "/settings/pipeline_run_limit"),
        ({"settings": {"invalid_schedule_interval": True}}, "/settings/invalid_schedule_interval"),
        ({"settings": {"a/b": 1}}, "/settings/a~1b"),
        ({"variables": {"n": 2**63}}, "/variables/n"),
        ({"name": " - "}, "/name"),
        ({"name": "n" * 300}, "/name"),
        ({"pipeline_uuid": "nope"}, "/pipeline_uuid"),
    ],
)
async def test_a_bad_draft_makes_nothing_and_names_the_field(
    world: World, draft: Mapping[str, Any], pointer: str
) -> None:
    world.pipeline("etl", {"a": []})
    good = {"pipeline_uuid": "etl", "name": "t", "schedule_interval": "@daily"}
    async with world.serving() as engine:
        with pytest.raises(InvalidInput) as refused:
            await engine.triggers.create(TriggerDraft(**{**good, **draft}))
        assert [fault.pointer for fault in refused.value.errors] == [pointer]
        assert await engine.db.read(schedules.page, limit=5) == []


async def test_every_fault_of_a_draft_is_named_at_once(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        with pytest.raises(InvalidInput) as refused:
            await engine.triggers.create(
                TriggerDraft(pipeline_uuid="etl", name="-", schedule_type="time", status="on")
            )
        pointers = {fault.pointer for fault in refused.value.errors}
        assert pointers == {"/name", "/schedule_interval", "/status"}


async def test_an_api_trigger_has_no_interval(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        for given in ({"schedule_interval": "@daily"}, {"start_time": clock.now()}):
            with pytest.raises(InvalidInput, match="only a trigger of type time"):
                await engine.triggers.create(
                    TriggerDraft(pipeline_uuid="etl", name="t", schedule_type="api", **given)
                )


async def test_of_many_who_want_a_name_one_gets_it(world: World) -> None:
    world.pipeline("etl", {"a": []})
    world.pipeline("other", {"b": []})
    async with world.serving() as engine:
        found = await asyncio.gather(*(make(engine) for _ in range(6)), return_exceptions=True)
        assert [type(one) for one in found].count(NameTaken) == 5
        other = TriggerDraft(pipeline_uuid="other", name="t", schedule_interval="@daily")
        await engine.triggers.create(other)  # unique within the pipeline only
        second = await make(engine, "second")
        with pytest.raises(NameTaken):
            await engine.triggers.update(second.id, {"name": "t"})
        assert (await engine.triggers.update(second.id, {"name": "third"})).name == "third"
        await make(engine, "second")


async def test_a_repeated_creation_makes_one_trigger_and_shows_no_token_again(world: World) -> None:
    world.pipeline("etl", {"a": []})
    draft = TriggerDraft(pipeline_uuid="etl", name="hook", schedule_type="api")
    key = Idempotency("POST /pipeline_schedules", "k", "same")
    async with world.serving() as engine:
        answers = await asyncio.gather(*(engine.triggers.create(draft, idempotency=key) for _ in range(3)))
        assert len({row.id for row, _ in answers}) == 1
        assert len([token for _, token in answers if token is not None]) == 1


async def test_an_edit_never_fires_the_past_and_leaves_no_slot_without_a_row(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        row = await make(engine)
        await age(engine, hours=3)
        after = await engine.triggers.update(row.id, {"schedule_interval": "*/30 * * * *"})
        assert await ledger(engine, row.id) == [("missed", "edited", 1)] * 3
        assert after.next_fire_at is not None
        assert after.next_fire_at > clock.now() - timedelta(seconds=1)
        await engine.passes.tick()
        assert await engine.db.read(runs.page, limit=5) == []


async def test_what_was_due_before_a_pause_is_skipped_and_a_resume_starts_from_now(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        row = await make(engine)
        await age(engine, hours=40)
        paused = await engine.triggers.pause(row.id)
        assert (paused.status, paused.next_fire_at) == (ScheduleStatus.INACTIVE, None)
        assert await ledger(engine, row.id) == [("skipped", "paused", 40)]
        assert await engine.triggers.pause(row.id) == paused, "a second pause changes nothing"
        resumed = await engine.triggers.resume(row.id)
        assert resumed.revision == paused.revision + 1
        assert resumed.next_fire_at is not None
        await engine.passes.tick()
        assert await ledger(engine, row.id) == [("skipped", "paused", 40)]


async def test_an_edit_beside_a_tick_decides_each_slot_once(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        rows = [await make(engine, f"t{n}") for n in range(8)]
        await age(engine, hours=2)
        edits = (engine.triggers.update(row.id, {"schedule_interval": "@daily"}) for row in rows)
        await asyncio.gather(engine.passes.tick(), *edits, engine.passes.tick())
        for row in rows:
            outcomes = [outcome for outcome, _reason, _count in await ledger(engine, row.id)]
            assert outcomes in (["missed", "run"], ["missed", "missed"])


async def test_of_two_who_have_seen_the_same_only_one_changes_it(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        row = await make(engine)
        changes = [engine.triggers.update(row.id, {"description": d}, revision=1) for d in "abcd"]
        found = await asyncio.gather(*changes, return_exceptions=True)
        assert [type(one) for one in found].count(PreconditionFailed) == 3
        with pytest.raises(PreconditionFailed):
            await engine.triggers.delete(row.id, 1)
        same = await engine.triggers.update(row.id, {"timezone": None}, revision=2)
        assert same.revision == 2, "nothing has changed"


async def test_start_time_put_off_and_taken_back(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        row = await make(engine)
        week = clock.now() + timedelta(days=7)
        off = await engine.triggers.update(row.id, {"start_time": week})
        assert off.next_fire_at is not None and off.next_fire_at >= week
        back = await engine.triggers.update(row.id, {"start_time": None})
        assert back.next_fire_at is not None
        assert back.next_fire_at <= clock.now() + timedelta(hours=1)


async def test_once_is_once_over_pause_resume_and_edits(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        row = await make(engine, schedule_interval="@once")
        await engine.passes.tick()
        assert len(await ledger(engine, row.id)) == 1
        for _ in range(2):
            await engine.triggers.pause(row.id)
            await engine.triggers.resume(row.id)
            await engine.triggers.update(row.id, {"timezone": "Asia/Tokyo"})
            await engine.passes.tick()
        assert len(await ledger(engine, row.id)) == 1
        await engine.triggers.update(row.id, {"schedule_interval": "@daily"})
        await engine.triggers.update(row.id, {"schedule_interval": "@once"})
        await engine.passes.tick()
        assert len(await ledger(engine, row.id)) == 2, "made to be once anew, it has a new date"
        (run, _) = sorted(await engine.db.read(runs.page, limit=5), key=lambda run: run.id)
        again = (
            {"schedule_interval": "@hourly"},
            {"schedule_interval": "@once", "start_time": run.execution_date},
        )
        for changes in again:
            await engine.triggers.update(row.id, changes)
        await engine.passes.tick()
        assert len(await ledger(engine, row.id)) == 2, "a date in the past is not fired"


async def test_always_on_goes_on_after_it_was_hourly(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        row = await make(engine)
        run = await engine.triggers.launch(row.id)
        assert await engine.wait(run.id, 10)
        await engine.triggers.update(row.id, {"timezone": "UTC"})  # its cursor is past the end of that run
        await engine.triggers.update(row.id, {"schedule_interval": "@always_on"})
        await engine.passes.tick()
        assert await ledger(engine, row.id) == [("run", None, 1)]
        await until(lambda: len(world.executor.calls) == 2)


async def test_a_deleted_trigger_keeps_its_history_and_frees_its_name(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        row, token = await made_with_token(engine)
        run = await engine.triggers.launch(row.id)
        await engine.triggers.delete(row.id, 1)
        assert await engine.db.read(schedules.get, row.id) is None
        for gone in (
            engine.triggers.delete(row.id),
            engine.triggers.update(row.id, {"name": "x"}),
            engine.triggers.resume(row.id),
            engine.triggers.launch(row.id),
            engine.triggers.rotate_token(row.id),
        ):
            with pytest.raises(ScheduleNotFound):
                await gone
        with pytest.raises(NotFound):
            await engine.triggers.launch_by_token(row.id, token, None)
        assert await engine.wait(run.id, 10), "a run that exists goes on"
        kept = await engine.db.read(runs.page, schedule_id=[row.id], limit=5)
        assert [one.id for one in kept] == [run.id]
        again, _ = await made_with_token(engine)
        assert again.id > row.id


async def test_a_trigger_of_a_file_is_changed_in_the_file(world: World) -> None:
    world.pipeline("etl", {"a": []})
    world.triggers("etl", {"name": "t", "schedule_interval": "@hourly"})
    async with world.serving() as engine:
        await engine.passes.sync(force=True)
        (row,) = await engine.db.read(schedules.page, limit=5)
        for edit in (
            engine.triggers.update(row.id, {"name": "x"}),
            engine.triggers.delete(row.id),
            engine.triggers.pause(row.id),
            engine.triggers.resume(row.id),
        ):
            with pytest.raises(ManagedByFile) as refused:
                await edit
            assert "pipelines/etl/triggers.yaml" in refused.value.hint
        run = await engine.triggers.launch(row.id, variables={"by": "hand"})
        assert (run.pipeline_schedule_id, run.cause) == (row.id, Cause.API)
        assert await engine.wait(run.id, 10)
        # What has gone from the file is the API's to delete.
        world.triggers("etl")
        await engine.passes.sync()
        assert (await look(engine, row.id)).managed_by == "api"
        await engine.triggers.delete(row.id)


async def test_a_file_takes_over_the_trigger_of_its_name(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        row, token = await made_with_token(engine)
        world.triggers("etl", {"name": "hook", "schedule_type": "api", "description": "in code now"})
        assert await engine.passes.sync()
        taken = await look(engine, row.id)
        assert (taken.managed_by, taken.description) == ("file", "in code now")
        assert (await engine.triggers.launch_by_token(row.id, token, None)).pipeline_schedule_id == row.id


async def test_tokens_of_files(world: World) -> None:
    world.pipeline("etl", {"a": []})
    theirs = "0123456789abcdef0123456789abcdef"
    world.triggers(
        "etl",
        {"name": "with", "schedule_type": "api", "token": theirs},
        {"name": "without", "schedule_type": "api"},
        {"name": "short", "schedule_type": "api", "token": "guess"},
    )
    async with world.serving() as engine:
        await engine.passes.sync(force=True)
        rows = {row.name: row for row in await engine.db.read(schedules.page, limit=5)}
        await engine.triggers.launch_by_token(rows["with"].id, theirs, None)
        with pytest.raises(ManagedByFile):
            await engine.triggers.rotate_token(rows["with"].id)
        assert rows["short"].error is not None and "16 characters" in rows["short"].error
        with pytest.raises(NotFound):
            await engine.triggers.launch_by_token(rows["short"].id, "guess", None)
        with pytest.raises(Quarantined):
            await engine.triggers.launch(rows["short"].id)
        ours = await engine.triggers.rotate_token(rows["without"].id)
        world.triggers("etl", {"name": "without", "schedule_type": "api", "description": "edited"})
        await engine.passes.sync()
        run = await engine.triggers.launch_by_token(rows["without"].id, ours, None)
        assert run.pipeline_schedule_id == rows["without"].id, "an edit of the file keeps the token"


async def test_one_answer_for_everything_that_is_not_an_open_api_trigger(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        row, token = await made_with_token(engine)
        timed = await make(engine)
        refusals = [
            (row.id, token[:-1]),
            (row.id, token + "A"),
            (row.id, ""),
            (row.id, None),
            (row.id, hash_of(token)),
            (row.id, "\udcff\ud800"),
            (timed.id, token),
            (timed.id, ""),
            (987654321, token),
            (None, token),
        ]
        said = {await _refusal(engine, *one) for one in refusals}
        await engine.triggers.pause(row.id)
        said.add(await _refusal(engine, row.id, token))
        await engine.triggers.resume(row.id)
        await engine.triggers.launch_by_token(row.id, token, None)
        new = await engine.triggers.rotate_token(row.id)
        said.add(await _refusal(engine, row.id, token))
        assert len(said) == 1
        await engine.triggers.launch_by_token(row.id, new, {})
        assert len(await engine.db.read(runs.page, limit=20)) == 2


async def _refusal(engine: Engine, schedule_id: int | None, token: str | None) -> tuple[Any, ...]:
    with pytest.raises(RunwrightError) as refused:
        await engine.triggers.launch_by_token(schedule_id, token, {"pipeline_run": "not looked at"})
    error = refused.value
    return type(error), error.detail, error.hint, error.errors


async def test_only_the_hash_of_a_token_is_kept(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        row, token = await made_with_token(engine)
        kept = await engine.db.read(lambda tx: list(tx.execute(SCHEDULE.select()).one()))
        assert hash_of(token) in kept and token not in map(str, kept)
        assert token not in repr(row) and hash_of(token) not in repr(row)


@pytest.mark.parametrize(
    ("settings", "fate"),
    [
        ({"pipeline_run_limit": 1}, (RunStatus.CANCELLED, "pipeline_run_limit")),
        ({"skip_if_previous_running": True}, (RunStatus.CANCELLED, "overlap")),
        ({"pipeline_run_limit": 1, "on_pipeline_run_limit_reached": "wait"}, (RunStatus.INITIAL, None)),
    ],
)
async def test_a_surplus_run_is_cancelled_at_birth_or_waits(
    world: World, settings: Mapping[str, Any], fate: tuple[RunStatus, str | None]
) -> None:
    world.pipeline("etl", {"a": []})
    gate = asyncio.Event()

    async def waits(call: Any) -> Any:
        from tests.engine.conftest import done

        await gate.wait()
        return done()

    world.executor.plays["a"] = waits
    async with world.serving() as engine:
        row, token = await made_with_token(engine, settings=settings)
        launched = await asyncio.gather(
            *(engine.triggers.launch_by_token(row.id, token, None) for _ in range(4))
        )
        await until(lambda: len(world.executor.calls) == 1)
        found = [(await world.look(engine, run.id))[0] for run in launched]
        fates = sorted((run.status, run.status_reason) for run in found)
        assert fates == sorted([(RunStatus.RUNNING, None), *[fate] * 3], key=str)
        gate.set()
        for run in launched:
            assert await engine.wait(run.id, 10)


async def test_a_limit_follows_its_trigger(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        row = await make(engine, settings={"pipeline_run_limit": 3})
        scope = f"schedule:{row.id}"
        assert await engine.db.read(limits.limits, scope) == {scope: 3}
        await engine.triggers.pause(row.id)
        assert await engine.db.read(limits.limits, scope) == {scope: 3}
        await engine.triggers.update(row.id, {"settings": {}})
        assert await engine.db.read(limits.limits, scope) == {}


async def test_a_trigger_that_was_quarantined_is_mended_by_an_edit(world: World) -> None:
    world.pipeline("etl", {"a": []})
    async with world.serving() as engine:
        row = await make(engine)
        await engine.db.write(slots.quarantine, [(row, "no interval")], now=clock.now())
        await engine.triggers.update(row.id, {"schedule_interval": "@daily"})
        mended = await look(engine, row.id)
        assert mended.error is None and mended.next_fire_at is not None
