"""Everything that moves rows, in any order, on a real database: a state machine that knows what each step must do.

The machine reads all rows before each step, says by plain code what the step must change, and compares; some steps
are wrong on purpose (an old epoch, another's run, the same unit twice) and must change nothing. The invariants are
checked after every step, and that what is over stays as it is.
"""

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule
from sqlalchemy import select

from app import clock
from app.errors import LeaseLost
from app.models.states import BLOCK_TERMINAL, RUN_TERMINAL, Outcome, RunStatus
from app.store import nodes, ownership, pruning
from app.store.admit import admit
from app.store.db import Tx
from app.store.invariants import find
from app.store.opening import backend_for
from app.store.sql import ATTEMPT, BLOCK, JOURNAL, LOG, NODE, RUN, TOMBSTONE, VERSION
from app.store.units import Close, Mismatch, Unit, Verdict
from tests.store.machines import Machine
from tests.store.store_steps import PIPELINES, TRIES, B, Run, Steps


def _read(tx: Tx) -> dict[int, Run]:
    found = {row.id: Run(row, {}, {}) for row in tx.execute(select(RUN).order_by(RUN.c.id))}
    owner: dict[int, Run] = {}
    for block in tx.execute(select(BLOCK).order_by(BLOCK.c.id)):
        owner[block.id] = found[block.pipeline_run_id]
        owner[block.id].blocks[block.id] = block
    for attempt in tx.execute(select(ATTEMPT).order_by(ATTEMPT.c.block_run_id, ATTEMPT.c.attempt)):
        owner[attempt.block_run_id].attempts.setdefault(attempt.block_run_id, []).append(attempt)
    return found


class StoreMachine(Steps, Machine):
    """Two nodes and a handful of runs."""

    tables = (LOG, ATTEMPT, BLOCK, RUN, VERSION, JOURNAL, NODE, TOMBSTONE)

    def read(self) -> dict[int, Run]:
        found: dict[int, Run] = self.runner.run(self.bench.db.read(_read))
        return found

    def flush(self, unit: Unit, node: str) -> Any:
        return self.runner.run(self._flush(unit, node))

    async def _flush(self, unit: Unit, node: str) -> Any:
        if node not in self.backends:
            backend = backend_for(self.bench.db, node)
            try:
                await backend.open()
            except LeaseLost as error:
                return error
            self.backends[node] = backend
        try:
            (answer,) = await self.backends[node].flush([unit])
        except LeaseLost as error:  # on Postgres a fenced node is told so for all of its units
            return error
        return answer

    @initialize()
    def begin(self) -> None:
        self.wipe()
        self.backends: dict[str, Any] = {}
        self.over: dict[int, Run] = {}
        self.hooks = 0

    # Runs come

    @rule(
        name=st.sampled_from(sorted(PIPELINES)),
        who=st.sampled_from([0, 1, 0, 1, None]),
        first=st.booleans(),
        data=st.data(),
    )
    def launch(self, name: str, who: int | None, first: bool, data: st.DataObject) -> None:
        before = self.read().values()
        live = [run.row.id for run in before if run.row.completed_at is None]
        queue = sum(run.row.status == RunStatus.INITIAL for run in before)
        parent = data.draw(st.sampled_from([None, *live[:2]]))
        new = self.runner.run(self.bench.new(PIPELINES[name], first=first, parent_run_id=parent))
        new = replace(new, blocks=tuple(replace(block, max_attempts=TRIES) for block in new.blocks))
        node = None if who is None else self.nodes[who]
        self.runner.run(self.bench.launch(new, claim=node is not None, free=9, node=node))
        run = self.read()[new.id]
        assert run.row.parent_run_id == parent
        if any(old.row.id == parent and old.row.cancel_requested_at for old in before):
            assert (run.row.status, run.row.status_reason) == (RunStatus.CANCELLED, ownership.PARENT)
            return
        if node is None or queue >= 9:
            assert (run.row.status, run.row.owner) == (RunStatus.INITIAL, None)
        else:
            assert (run.row.status, run.row.owner) == (RunStatus.RUNNING, node)
        starts = (
            first and node is not None and not queue
        )  # behind others it is admitted, and starts by itself
        assert [b.status for b in run.blocks.values()].count(B.RUNNING) == starts

    @rule(who=st.sampled_from([0, 1]))
    def admit(self, who: int) -> None:
        waiting = [run.row.id for run in self.read().values() if run.row.status == RunStatus.INITIAL]
        self.call(admit, self.bench.claimer(9, self.nodes[who]), now=clock.now())
        for run_id in waiting[:9]:
            row = self.read()[run_id].row
            assert (row.status, row.owner, row.epoch) == (RunStatus.RUNNING, self.nodes[who], 1)

    # Runs go on

    @precondition(lambda self: any(r.row.status == RunStatus.RUNNING for r in self.read().values()))
    @rule(data=st.data(), fault=st.sampled_from(["epoch", "node", "twice"]))
    def work_wrongly(self, data: st.DataObject, fault: str) -> None:
        self._work(data, data.draw(st.integers(1, 8)), fault)

    @precondition(lambda self: any(r.row.status == RunStatus.RUNNING for r in self.read().values()))
    @rule(data=st.data(), times=st.integers(1, 8))
    def work(self, data: st.DataObject, times: int) -> None:
        self._work(data, times)

    @precondition(lambda self: any(r.row.status == RunStatus.RUNNING for r in self.read().values()))
    @rule(data=st.data())
    def work_long(self, data: st.DataObject) -> None:
        self._work(data, 12)

    def _work(self, data: st.DataObject, times: int, fault: str = "") -> None:
        """A run goes on by some units of the journal that are due; the last of them may be a wrong one."""
        running = [run.row.id for run in self.read().values() if run.row.status == RunStatus.RUNNING]
        run_id = data.draw(st.sampled_from(running))
        for number in range(times):
            run = self.read()[run_id]
            parts = self.due(run) if run.row.status == RunStatus.RUNNING else []
            if not parts:
                return
            unit = Unit(run_id=run_id, epoch=run.row.epoch, **data.draw(st.sampled_from(parts)))
            self.step(run, unit, fault if number == times - 1 else "")

    def step(self, run: Run, unit: Unit, fault: str) -> None:
        """Write a unit, right or wrong."""
        before = self.read()
        if fault in ("epoch", "node"):
            stale = replace(unit, epoch=unit.epoch - 1) if fault == "epoch" else unit
            node = run.row.owner if fault == "epoch" else next(n for n in self.nodes if n != run.row.owner)
            assert isinstance(self.flush(stale, node), LeaseLost)
            assert self.read() == before, "nothing is changed by who may not"
            return
        answer = self.flush(unit, run.row.owner)
        refused = run.asked_to_stop
        assert answer == Verdict("cancel" if refused else None), answer
        after = self.read()
        self.judge(run, after[run.row.id], unit, refused)
        changes = unit.finishes or unit.settles or unit.close or not refused
        if fault == "twice" and changes and not unit.waits:
            assert isinstance(self.flush(unit, run.row.owner), Mismatch | LeaseLost)
            assert self.read() == after, "a unit is done once"

    def judge(self, before: Run, after: Run, unit: Unit, refused: bool) -> None:
        """What a unit that was written has changed, and that it has changed nothing else."""
        touched = {f.block_run_id for f in unit.finishes} | {s.block_run_id for s in unit.settles}
        for end in unit.finishes:
            attempt = after.attempts[end.block_run_id][end.attempt - 1]
            assert (attempt.outcome, attempt.ended_at is None) == (end.outcome, False)
            if not end.hook:
                assert after.blocks[end.block_run_id].status == end.status
        for settle in unit.settles:
            assert after.blocks[settle.block_run_id].status == settle.status
        for start in unit.starts:
            touched.add(start.block_run_id)
            block, opened = after.blocks[start.block_run_id], after.open_of(start.block_run_id)
            if refused and start.hook is None:
                assert opened is None and block == before.blocks[start.block_run_id]
                continue
            assert (block.attempt, opened.attempt, opened.hook) == (start.attempt, start.attempt, start.hook)
            assert (opened.epoch, opened.node_id) == (before.row.epoch, before.row.owner)
            assert start.hook or block.status == B.RUNNING
        for plan in unit.plans:
            touched.add(plan.block_run_id)
            assert len(after.children(after.blocks[plan.block_run_id])) == plan.children
        touched |= {w.block_run_id for w in unit.waits} | {c.id for c in unit.children}
        rest = after.blocks.keys() - touched
        assert all(after.blocks[i] == before.blocks[i] for i in rest), "another block was changed"
        assert (after.row == before.row) == (unit.close is None)
        if unit.close is not None:
            assert after.row.status == unit.close.status

    @rule(data=st.data())
    def close_too_early(self, data: st.DataObject) -> None:
        before = self.read()
        open_ones = [
            run
            for run in before.values()
            if run.row.status == RunStatus.RUNNING
            and any(b.status not in BLOCK_TERMINAL for b in run.blocks.values())
        ]
        if open_ones:
            run = data.draw(st.sampled_from(open_ones))
            unit = Unit(run_id=run.row.id, epoch=run.row.epoch, close=Close(status=RunStatus.COMPLETED))
            assert isinstance(self.flush(unit, run.row.owner), Mismatch)
            assert self.read() == before

    # Runs are stopped, lost and forgotten

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        before = self.read()
        if not before:
            return
        run = data.draw(st.sampled_from(list(before.values())))
        self.call(ownership.cancel, run.row.id, reason="cancel requested", now=clock.now())
        after = self.read()
        asked = {run.row.id}
        for row in (r.row for r in before.values()):  # ids grow: parents come first
            if row.parent_run_id in asked and row.completed_at is None:
                asked.add(row.id)
        for run_id, old in before.items():
            new = after[run_id]
            if run_id not in asked or old.row.status in RUN_TERMINAL:
                assert new == old
            elif old.row.status == RunStatus.INITIAL:
                assert new.row.status == RunStatus.CANCELLED
                assert {b.status for b in new.blocks.values()} == {B.CANCELLED}
            else:
                assert new.asked_to_stop and new.row.status == RunStatus.RUNNING and new.blocks == old.blocks

    @rule(
        who=st.sampled_from([0, 1]), how=st.sampled_from(["crash", "leave"]), limit=st.sampled_from([1, 100])
    )
    def a_node_goes(self, who: int, how: str, limit: int) -> None:
        """The other one takes over what it can; the first comes back as another node, and takes the rest."""
        gone, heir = self.nodes[who], self.nodes[1 - who]
        before = self.read()
        if how == "crash":
            self.call(nodes.fence, [gone], now=clock.now())
        else:
            self.call(nodes.drain, gone)
            self.call(nodes.hand_over, gone, now=clock.now())
        owned = sorted(
            i for i, r in before.items() if r.row.owner == gone and r.row.status == RunStatus.RUNNING
        )
        assert self.call(ownership.takeover, gone, limit=100, now=clock.now()) == [], "the dead take nothing"
        self.nodes[who] = self.runner.run(self.bench.node())
        for node, most in ((heir, limit), (self.nodes[who], 100)):
            taken = self.call(ownership.takeover, node, limit=most, now=clock.now())
            assert [t.run_id for t in taken] == owned[:most]
            after = self.read()
            for one in taken:
                self.judge_lost(before[one.run_id], after[one.run_id], node)
            owned = owned[most:]

    def judge_lost(self, before: Run, after: Run, node: str) -> None:
        assert (after.row.owner, after.row.epoch) == (node, before.row.epoch + 1)
        for block_id, block in before.blocks.items():
            opened = before.open_of(block_id)
            status = B.QUEUED if block.status == B.RUNNING else block.status
            assert after.blocks[block_id].status == status
            assert after.open_of(block_id) is None
            if opened is not None:
                lost = after.attempts[block_id][opened.attempt - 1]
                assert lost.outcome == (Outcome.CANCELLED if block.wake_at else Outcome.LOST)

    @rule(data=st.data(), right=st.booleans())
    def retake(self, data: st.DataObject, right: bool) -> None:
        before = self.read()
        mine = [run for run in before.values() if run.row.status == RunStatus.RUNNING]
        if mine:
            run = data.draw(st.sampled_from(mine))
            epoch = run.row.epoch if right else run.row.epoch + 1
            done = self.call(ownership.retake, run.row.id, run.row.owner, epoch, now=clock.now())
            assert done == right
            after = self.read()
            if right:
                self.judge_lost(run, after[run.row.id], run.row.owner)
            else:
                assert after == before

    @rule(data=st.data(), right=st.booleans())
    def abort(self, data: st.DataObject, right: bool) -> None:
        before = self.read()
        mine = [run for run in before.values() if run.row.status == RunStatus.RUNNING]
        if mine:
            run = data.draw(st.sampled_from(mine))
            owner = run.row.owner if right else next(n for n in self.nodes if n != run.row.owner)
            done = self.call(ownership.abort, run.row.id, owner, run.row.epoch, reason="x", now=clock.now())
            assert done == right
            after = self.read()
            if right:
                ended = after[run.row.id]
                assert (ended.row.status, ended.row.status_reason) == (RunStatus.FAILED, "x")
                for block_id, block in run.blocks.items():
                    wanted = block.status if block.status in BLOCK_TERMINAL else B.CANCELLED
                    assert ended.blocks[block_id].status == wanted
            else:
                assert after == before

    @rule(data=st.data())
    def prune(self, data: st.DataObject) -> None:
        """Of the runs that somebody wants gone those go that are over and that nobody needs."""
        before = self.read()
        wanted = [run_id for run_id in before if data.draw(st.booleans())]
        named = {run.row.parent_run_id for run in before.values()}
        newest = {r.row.pipeline_uuid: i for i, r in before.items() if r.row.status == RunStatus.COMPLETED}
        kept = named.union(newest.values())
        due = [i for i in wanted if before[i].row.status in RUN_TERMINAL and i not in kept]
        gone = self.call(pruning.forget_runs, wanted, now=clock.now())
        assert sorted(gone) == due
        assert self.read() == {run_id: run for run_id, run in before.items() if run_id not in due}
        for run_id in due:
            self.over.pop(run_id, None)

    # What always holds

    @invariant()
    def what_is_over_stays_as_it_is(self) -> None:
        if not hasattr(self, "over"):
            return
        now = self.read()
        for run_id, run in self.over.items():
            assert now[run_id] == run, "a run that is over was changed"
        self.over = {i: run for i, run in now.items() if run.row.completed_at is not None}

    @invariant()
    def the_invariants_hold(self) -> None:
        if hasattr(self, "over"):
            found = self.runner.run(self.bench.db.read(find))
            assert not found, "\n".join(found)

    def teardown(self) -> None:
        for backend in getattr(self, "backends", {}).values():
            self.runner.run(backend.close())
