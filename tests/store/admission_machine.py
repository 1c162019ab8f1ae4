"""Launch, admission, end, cancel, crash, takeover and changes of limits in any order, on a real database.

The machine holds next to nothing of its own: before each step it reads the rows, says by a plain loop what must
happen, and compares.
"""

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule
from sqlalchemy import select

from app import clock
from app.models.pipeline import Limits
from app.models.states import Cause, RunStatus, ScheduleStatus, ScheduleType
from app.scheduler.admission import judged
from app.store import limits, nodes, ownership
from app.store.admit import admit
from app.store.db import Tx
from app.store.invariants import find
from app.store.scopes import scopes_of
from app.store.sql import ATTEMPT, BLOCK, HISTORY, JOURNAL, LIMIT, NODE, RUN, SCHEDULE, VERSION
from tests.store.conftest import chain
from tests.store.machines import Machine

SLOTS = 4
#: trigger id -> its settings; 0 stands for no trigger
TRIGGERS: dict[int, dict[str, Any]] = {
    0: {},
    1: {"pipeline_run_limit": 9, "on_pipeline_run_limit_reached": "wait"},
    2: {"pipeline_run_limit": 9, "on_pipeline_run_limit_reached": "replace"},
    3: {"pipeline_run_limit": 9},
    4: {"skip_if_previous_running": True},
}
SCOPES = ("global", "key:k", "pipeline:a", "pipeline:b", "schedule:1", "schedule:2", "schedule:3")
LIVE = (RunStatus.INITIAL, RunStatus.RUNNING)


def _make_triggers(tx: Tx) -> None:
    now = clock.now()
    for schedule_id in (1, 2, 3, 4):
        tx.execute(
            SCHEDULE.insert().values(
                id=schedule_id,
                name=f"t{schedule_id}",
                pipeline_uuid="a",
                schedule_type=ScheduleType.API,
                status=ScheduleStatus.ACTIVE,
                variables={},
                settings={},
                tags=[],
                managed_by="api",
                revision=1,
                created_at=now,
                updated_at=now,
            )
        )
    limits.set_limit(tx, "schedule:4", 1, now=now)


def _state(tx: Tx) -> tuple[list[Any], dict[str, int]]:
    columns = (
        RUN.c.id, RUN.c.status, RUN.c.status_reason, RUN.c.priority, RUN.c.created_at, RUN.c.pipeline_uuid, RUN.c.owner,
        RUN.c.pipeline_schedule_id, RUN.c.concurrency_key, RUN.c.rides, RUN.c.epoch, RUN.c.cancel_requested_at,
    )  # fmt: skip
    caps = {row.scope: row.cap for row in tx.execute(select(LIMIT.c.scope, LIMIT.c.cap))}
    order = (RUN.c.priority.desc(), RUN.c.created_at, RUN.c.id)
    return list(tx.execute(select(*columns).where(RUN.c.status.in_(LIVE)).order_by(*order))), caps


def _scopes(row: Any) -> tuple[str, ...]:
    return scopes_of(row.pipeline_uuid, row.pipeline_schedule_id, row.concurrency_key, row.rides)


class AdmissionMachine(Machine):
    """Two nodes and a handful of pipelines, triggers and a key."""

    tables = (ATTEMPT, BLOCK, RUN, VERSION, LIMIT, HISTORY, JOURNAL, NODE, SCHEDULE)

    @initialize(
        caps=st.fixed_dictionaries({scope: st.sampled_from([None, None, 1, 2, 3]) for scope in SCOPES})
    )
    def begin(self, caps: dict[str, int | None]) -> None:
        self.wipe()
        self.call(_make_triggers)
        for scope, cap in caps.items():
            self.call(limits.set_limit, scope, cap, now=clock.now())

    def live(self) -> tuple[list[Any], dict[str, int]]:
        found: tuple[list[Any], dict[str, int]] = self.call(_state)
        return found

    def free(self, rows: list[Any], node: str) -> int:
        return max(0, SLOTS - sum(1 for row in rows if row.owner == node))

    def due(self, rows: list[Any], caps: dict[str, int], free: int) -> list[int]:
        """The rule, told plainly: in order, whoever has room in all his scopes."""
        used = dict.fromkeys(caps, 0)
        for row in rows:
            if row.status == RunStatus.RUNNING:
                for scope in used.keys() & set(_scopes(row)):
                    used[scope] += 1
        found: list[int] = []
        for row in rows:
            mine = used.keys() & set(_scopes(row))
            if row.status == RunStatus.INITIAL and len(found) < free and all(used[s] < caps[s] for s in mine):
                found.append(row.id)
                for scope in mine:
                    used[scope] += 1
        return found

    @rule(
        pipeline=st.sampled_from("ab"),
        trigger=st.sampled_from(sorted(TRIGGERS)),
        key=st.sampled_from([None, "k"]),
        priority=st.sampled_from([0, 0, 0, 5]),
        rides=st.sampled_from([False, False, False, True]),
        who=st.sampled_from([None, 0, 1]),
        count=st.integers(1, 3),
    )
    def launch(
        self,
        pipeline: str,
        trigger: int,
        key: str | None,
        priority: int,
        rides: bool,
        who: int | None,
        count: int,
    ) -> None:
        rows, caps = self.live()
        by = judged(pipeline, trigger or None, TRIGGERS[trigger], Limits(), Cause.API)
        given = {
            "pipeline_schedule_id": trigger or None,
            "concurrency_key": key,
            "priority": priority,
            "rides": rides,
        }
        made = [
            replace(self.runner.run(self.bench.new(chain(1, pipeline), **given)), judged=by)
            for _ in range(count)
        ]
        node = None if who is None else self.nodes[who]
        free = self.free(rows, node) if node else 0
        launched = self.runner.run(self.bench.launch(*made, claim=node is not None, free=free, node=node))
        if by is None and node and free:
            self.nobody_idles(node)
        for one in launched:
            self.judge(one, trigger, caps)

    def judge(self, one: Any, trigger: int, caps: dict[str, int]) -> None:
        cap = caps.get(f"schedule:{trigger}")
        if one.run.completed_at is not None:
            detail = one.run.status_detail
            assert one.run.status_reason == {3: "pipeline_run_limit", 4: "overlap"}[trigger]
            assert detail["scope"] == f"schedule:{trigger}" and detail["cap"] == cap
            assert len(detail["holders"]) == min(20, detail["running"] + detail["waiting"])
        for old in one.replaced:
            assert trigger == 2 and old.status_reason == "replaced" and old.id != one.run.id
            assert old.status_detail["replaced_by"] == one.run.id

    @rule(who=st.sampled_from([0, 1]))
    def admission(self, who: int) -> None:
        rows, caps = self.live()
        node = self.nodes[who]
        free = self.free(rows, node)
        claimer = self.bench.claimer(free, node)
        admitted = self.call(admit, claimer, now=clock.now())
        assert [run.id for run in admitted] == self.due(rows, caps, free), "first come, first served"
        waiting = sum(1 for row in rows if row.status == RunStatus.INITIAL) - len(admitted)
        assert (claimer.left > 0) == (waiting > 0) or free == 0, "else nobody looks again"
        self.nobody_idles(node)

    def nobody_idles(self, node: str) -> None:
        rows, caps = self.live()
        assert not self.due(rows, caps, self.free(rows, node)), (
            "a place is free beside a run that may take it"
        )

    @precondition(lambda self: hasattr(self, "nodes"))
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        rows = [row for row in self.live()[0] if row.status == RunStatus.RUNNING]
        if rows:
            row = data.draw(st.sampled_from(rows))
            assert self.call(ownership.abort, row.id, row.owner, row.epoch, reason="over", now=clock.now())

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        rows, _ = self.live()
        if rows:
            row = data.draw(st.sampled_from(rows))
            after = self.call(ownership.cancel, row.id, reason="cancel requested", now=clock.now())
            assert (after.completed_at is not None) == (row.status == RunStatus.INITIAL)

    @rule(who=st.sampled_from([0, 1]))
    def crash(self, who: int) -> None:
        """A node dies, the other one takes over what it had; nothing of that starts a run anew."""
        before = {row.id for row in self.live()[0] if row.status == RunStatus.RUNNING}
        self.call(nodes.fence, [self.nodes[who]], now=clock.now())
        self.call(ownership.takeover, self.nodes[1 - who], limit=100, now=clock.now())
        self.nodes[who] = self.runner.run(self.bench.node())
        rows, _ = self.live()
        assert {row.id for row in rows if row.status == RunStatus.RUNNING} == before
        assert all(row.owner == self.nodes[1 - who] for row in rows if row.status == RunStatus.RUNNING)

    @rule(scope=st.sampled_from(SCOPES), cap=st.sampled_from([None, 0, 1, 2, 3, 1, 2]))
    def change_limit(self, scope: str, cap: int | None) -> None:
        before = {row.id for row in self.live()[0] if row.status == RunStatus.RUNNING}
        self.call(limits.set_limit, scope, cap, now=clock.now(), source="api")
        rows, caps = self.live()
        assert caps.get(scope) == cap
        assert {row.id for row in rows if row.status == RunStatus.RUNNING} == before, "it ends none that runs"

    def teardown(self) -> None:
        found = self.runner.run(self.bench.db.read(find))
        assert not found, "\n".join(found)
