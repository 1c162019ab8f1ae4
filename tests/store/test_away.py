"""The database that is away, slow, full, or loses an answer: every caller is told so, and nothing is done twice."""

import asyncio
import errno
import sqlite3
import threading
import time
from collections.abc import Sequence
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Connection, text

from app import clock
from app.errors import LeaseLost, StoreUnavailable
from app.models.states import BlockStatus, Outcome, RunStatus
from app.store import nodes, ownership, runs
from app.store.admit import admit
from app.store.connecting import connect_raw
from app.store.db import Tx
from app.store.journal import Journal
from app.store.journal_postgres import PostgresJournal
from app.store.lease import Lease
from app.store.opening import open_database
from app.store.sqlite import SqliteDatabase
from app.store.units import Close, Finish, Start, Unit, Verdict
from tests.soak.proxy import Proxy, wire
from tests.store.conftest import Bench, chain
from tests.waits import until

DONE = BlockStatus.COMPLETED


def done(block_run_id: int, attempt: int = 1) -> Finish:
    return Finish(block_run_id=block_run_id, attempt=attempt, outcome=Outcome.COMPLETED, status=DONE)


async def bench_on(url: str) -> Bench:
    db = open_database(url)
    await db.open()
    bench = Bench(db, "")
    bench.me = await bench.node()
    return bench


async def step(bench: Bench) -> tuple[Unit, int]:
    """A unit that ends the first block of a new run and starts its second."""
    run, new = await bench.running()
    a, b = new.blocks
    unit = Unit(run_id=run.id, epoch=1, finishes=(done(a.id),), starts=(Start(block_run_id=b.id, attempt=1),))
    return unit, run.id


def one(tx: Connection) -> Any:
    return tx.execute(text("SELECT 1")).scalar()


# Postgres: what callers are told


async def test_a_server_that_is_not_there_is_an_unavailable_store(postgres_url: str) -> None:
    async with wire(postgres_url) as proxy:
        bench = await bench_on(proxy.url)
        await proxy.down()
        for call in (bench.db.read, bench.db.write):
            with pytest.raises(StoreUnavailable):
                await call(one)
        await proxy.up()
        assert await bench.db.read(one) == 1
        await bench.db.close()


async def test_a_killed_backend_is_an_unavailable_store_and_the_next_call_works(bench: Bench) -> None:
    if bench.db.dialect == "sqlite":
        return

    def suicide(tx: Connection) -> None:
        tx.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    with pytest.raises(StoreUnavailable):
        await bench.db.write(suicide)
    assert await bench.db.read(one) == 1


async def test_a_lock_that_is_held_for_long_is_an_unavailable_store(bench: Bench) -> None:
    if bench.db.dialect == "sqlite":
        return
    run, _ = await bench.running()
    held = threading.Event()

    def hold(tx: Connection) -> None:
        tx.execute(text("SELECT 1 FROM pipeline_run WHERE id = :id FOR UPDATE"), {"id": run.id})
        tx.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        held.set()
        tx.execute(text("SELECT pg_sleep(1.5)"))

    def want(tx: Connection) -> None:
        tx.execute(text("SET LOCAL lock_timeout = 200"))
        tx.execute(text("SELECT 1 FROM pipeline_run WHERE id = :id FOR UPDATE"), {"id": run.id})

    holder = asyncio.create_task(bench.db.write(hold))
    await asyncio.to_thread(held.wait, 5)
    with pytest.raises(StoreUnavailable):
        await bench.db.write(want)
    await holder


# Postgres: the journal


async def journal_on(proxy: Proxy, bench: Bench) -> PostgresJournal:
    backend = PostgresJournal(proxy.url, bench.me)
    await backend.open()
    return backend


async def flush_until_written(backend: PostgresJournal, units: Sequence[Unit]) -> list[Any]:
    """As the journal does it."""
    for _ in range(20):
        try:
            return await backend.flush(units)
        except StoreUnavailable:
            await asyncio.sleep(0.05)
    raise AssertionError("never written")


@pytest.mark.parametrize("refused", [0, 1, 3])
async def test_a_flush_whose_answer_was_lost_is_not_sent_again(postgres_url: str, refused: int) -> None:
    """However often the new connection fails before it can be asked whether the flush is on disk."""
    bench = await bench_on(postgres_url)
    unit, run_id = await step(bench)
    async with wire(postgres_url) as proxy:
        backend = await journal_on(proxy, bench)
        proxy.swallow, proxy.refuse = b"", refused
        assert await flush_until_written(backend, [unit]) == [Verdict()]
        assert proxy.swallowed.is_set()
        last = Unit(
            run_id=run_id,
            epoch=1,
            finishes=(done(unit.starts[0].block_run_id),),
            close=Close(status=RunStatus.COMPLETED),
        )
        assert await flush_until_written(backend, [last]) == [Verdict()]
        await backend.close()
    await bench.db.close()


@pytest.mark.parametrize("error", [OSError(errno.EHOSTUNREACH, "no route"), asyncpg.InternalClientError()])
async def test_however_the_connection_breaks_it_is_asked_what_became_of_the_flush(
    postgres_url: str, error: Exception
) -> None:
    bench = await bench_on(postgres_url)
    unit, _ = await step(bench)
    backend = PostgresJournal(postgres_url, bench.me)
    await backend.open()
    call = backend._call

    class Breaking:
        async def fetchval(self, *values: Any) -> None:
            await call.fetchval(*values)
            raise error

    backend._call = Breaking()
    assert await backend.flush([unit]) == [Verdict()]
    await backend.close()
    await bench.db.close()


async def test_a_flush_that_never_arrived_is_sent_again(postgres_url: str) -> None:
    bench = await bench_on(postgres_url)
    unit, run_id = await step(bench)
    async with wire(postgres_url) as proxy:
        backend = await journal_on(proxy, bench)
        await proxy.down()
        coming_back = asyncio.create_task(back_in(0.3, proxy))
        with pytest.raises(StoreUnavailable):
            await backend.flush([unit])
        await coming_back
        assert await flush_until_written(backend, [unit]) == [Verdict()]
        await backend.close()
    first, second = await bench.db.read(runs.blocks, run_id)
    assert (first.status, second.status) == (DONE, BlockStatus.RUNNING)
    await bench.db.close()


@pytest.mark.usefixtures("told_pid")
async def test_the_journal_knows_which_process_of_the_server_it_would_have_to_end(postgres_url: str) -> None:
    bench = await bench_on(postgres_url)
    backend = PostgresJournal(postgres_url, bench.me)
    await backend.open()
    assert backend._pid == await backend._connection.fetchval("SELECT pg_backend_pid()")
    await backend.close()
    await bench.db.close()


async def test_a_flush_that_the_server_still_works_on_when_the_wire_breaks_is_settled_first(
    postgres_url: str,
) -> None:
    """Read too early, `node_journal` says that it was not done; then it is, and the next flush looks fenced."""
    bench = await bench_on(postgres_url)
    unit, _ = await step(bench)
    holder, watcher = await connect_raw(postgres_url), await connect_raw(postgres_url)
    async with wire(postgres_url) as proxy:
        backend = await journal_on(proxy, bench)
        await holder.execute("BEGIN; SELECT 1 FROM node_journal FOR UPDATE")
        flushing = asyncio.create_task(flush_until_written(backend, [unit]))
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        await until(lambda: watcher.fetchval(waits))
        proxy.cut()
        await holder.execute("COMMIT")
        assert await asyncio.wait_for(flushing, 20) == [Verdict()]
        await backend.close()
    await holder.close()
    await watcher.close()
    await bench.db.close()


async def back_in(seconds: float, proxy: Proxy) -> None:
    await asyncio.sleep(seconds)
    await proxy.up()


async def test_after_a_lost_answer_a_start_counts_as_it_was_written(postgres_url: str) -> None:
    """A cancel that comes between the flush and the question must not take back what has started."""
    bench = await bench_on(postgres_url)
    unit, run_id = await step(bench)
    async with wire(postgres_url) as proxy:
        backend = await journal_on(proxy, bench)
        proxy.swallow, proxy.refuse = b"", 2
        flushing = asyncio.create_task(flush_until_written(backend, [unit]))
        await proxy.swallowed.wait()
        await bench.db.write(ownership.cancel, run_id, reason="test", now=clock.now())
        assert await flushing == [Verdict()]
        await backend.close()
    await bench.db.close()


async def test_when_the_server_goes_in_the_middle_what_was_written_one_by_one_counts(
    postgres_url: str,
) -> None:
    bench = await bench_on(postgres_url)
    good, good_run = await step(bench)
    unfit, _ = await step(bench)
    unfit = Unit(
        run_id=unfit.run_id, epoch=1, starts=(Start(block_run_id=unfit.starts[0].block_run_id, attempt=7),)
    )
    late, _ = await step(bench)
    async with wire(postgres_url) as proxy:
        backend = await journal_on(proxy, bench)
        flush_one = backend._flush_one
        coming_back: list[asyncio.Task[None]] = []

        async def dies_at_the_third(unit: Unit, **more: Any) -> Any:
            if unit is late and not coming_back:
                await proxy.down()
                coming_back.append(asyncio.create_task(back_in(0.3, proxy)))
            return await flush_one(unit, **more)

        backend._flush_one = dies_at_the_third  # type: ignore[method-assign]
        answers = await flush_until_written(backend, [good, unfit, late])
        assert answers[0] == Verdict()
        assert answers[2] in (None, Verdict())
        await coming_back[0]
        if answers[2] is None:
            assert await flush_until_written(backend, [late]) == [Verdict()]
        await backend.close()
    first, second = await bench.db.read(runs.blocks, good_run)
    assert (first.status, second.status) == (DONE, BlockStatus.RUNNING)
    await bench.db.close()


async def test_units_of_a_run_that_is_locked_wait_in_their_order(postgres_url: str) -> None:
    bench = await bench_on(postgres_url)
    unit, run_id = await step(bench)
    second = unit.starts[0].block_run_id
    close = Unit(run_id=run_id, epoch=1, finishes=(done(second),), close=Close(status=RunStatus.COMPLETED))
    backend = PostgresJournal(postgres_url, bench.me)
    await backend.open()
    flush_all, calls = backend._flush_all, 0

    async def locked_twice(units: Sequence[Unit]) -> Any:
        nonlocal calls
        calls += 1
        if calls <= 2:  # the batch, then the first unit alone; the lock is gone before the second
            raise asyncpg.LockNotAvailableError
        return await flush_all(units)

    backend._flush_all = locked_twice  # type: ignore[method-assign]
    assert await backend.flush([unit, close]) == [None, None]
    assert await backend.flush([unit]) == [Verdict()]
    assert await backend.flush([close]) == [Verdict()]
    await backend.close()
    await bench.db.close()


async def test_a_connection_that_breaks_while_it_is_made_is_an_unavailable_store(postgres_url: str) -> None:
    bench = await bench_on(postgres_url)
    async with wire(postgres_url) as proxy:
        proxy.swallow = b"pg_temp.journal"
        with pytest.raises(StoreUnavailable):
            await PostgresJournal(proxy.url, bench.me).open()
    await bench.db.close()


async def test_a_fenced_node_is_told_so_also_one_by_one(postgres_url: str) -> None:
    bench = await bench_on(postgres_url)
    unit, _ = await step(bench)
    backend = PostgresJournal(postgres_url, bench.me)
    await backend.open()
    await bench.db.write(nodes.fence, [bench.me], now=clock.now())
    assert isinstance(await backend._flush_one(unit, first=True), LeaseLost)
    assert not await bench.db.write(
        ownership.abort, unit.run_id, bench.me, 1, reason="internal_error", now=clock.now()
    )
    await backend.close()
    await bench.db.close()


# Both: the end of the journal


class Away:
    """A backend that is away for good."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def flush(self, units: Any) -> list[Any]:
        raise StoreUnavailable("away")


async def test_nobody_waits_for_a_journal_that_has_ended() -> None:
    journal = Journal(Away())
    task = asyncio.create_task(journal.run())
    waiting = [asyncio.create_task(journal.submit(Unit(run_id=n, epoch=1))) for n in range(2)]
    await asyncio.sleep(0.05)
    task.cancel()
    for submitted in waiting:
        with pytest.raises(LeaseLost):
            await asyncio.wait_for(submitted, 2)
    with pytest.raises(LeaseLost):
        await asyncio.wait_for(journal.submit(Unit(run_id=3, epoch=1)), 2)


# The lease


async def test_a_node_is_gone_before_its_lease_is_however_slow_the_database(postgres_url: str) -> None:
    bench = await bench_on(postgres_url)
    lost: list[tuple[float, str]] = []
    async with wire(postgres_url) as proxy:
        lease = Lease(proxy.url, bench.me, 2.0, lambda why: lost.append((time.monotonic(), why)))
        lease.start()
        began = time.monotonic()
        proxy.is_dead = True  # connections are taken, nothing is ever answered
        while not lost and time.monotonic() < began + 4:
            lease.mark_alive()
            await asyncio.sleep(0.02)
        await lease.stop()
    await bench.db.close()
    assert [why for _, why in lost] == ["the lease could not be renewed"]
    assert lost[0][0] - began < 0.75 * 2.0


# Limits, cancels


async def test_a_cancel_is_no_older_than_what_had_started(bench: Bench) -> None:
    """The caller looked at the clock, then waited for the writer, which started a block meanwhile."""
    asked = clock.now()
    run, _ = await bench.running()
    await bench.db.write(ownership.cancel, run.id, reason="test", now=asked)


async def test_a_node_that_was_fenced_starts_nothing(bench: Bench) -> None:
    other = await bench.node()
    await bench.db.write(nodes.fence, [bench.me], now=clock.now())
    (made,) = await bench.launch(await bench.new(first=True))
    assert (made.claimed, made.run.status) == (False, RunStatus.INITIAL)
    mine = bench.me
    bench.me = other
    assert [run.id for run in await bench.db.write(admit, bench.claimer(), now=clock.now())] == [made.run.id]
    bench.me = mine


async def test_the_run_that_was_lost_most_is_told_at_a_takeover(bench: Bench) -> None:
    run, _ = await bench.running(chain(1))
    owner = bench.me
    for times in range(1, 4):
        heir = await bench.node()
        await bench.db.write(nodes.fence, [owner], now=clock.now())
        (taken,) = await bench.db.write(ownership.takeover, heir, limit=5, now=clock.now())
        assert (taken.run_id, taken.lost) == (run.id, 1), f"nothing of it ran at takeover {times}"
        owner = heir


# SQLite


async def test_a_write_that_comes_while_the_file_is_closed_is_refused(sqlite_url: str) -> None:
    db = SqliteDatabase(sqlite_url)
    await db.open()
    slow = asyncio.create_task(db.write(lambda tx: time.sleep(0.2)))
    await asyncio.sleep(0.05)
    closing = asyncio.create_task(db.close())
    await asyncio.sleep(0.05)
    for call in (db.write, db.read):
        with pytest.raises(StoreUnavailable):
            await asyncio.wait_for(call(one), 2)
    await asyncio.gather(slow, closing)


async def test_a_full_disk_is_an_unavailable_store_also_for_the_journal(sqlite_url: str) -> None:
    bench = await bench_on(sqlite_url)
    unit, run_id = await step(bench)

    def pages(tx: Tx, count: int) -> None:
        raw: sqlite3.Connection = tx.connection.driver_connection  # type: ignore[assignment]
        raw.execute(f"PRAGMA max_page_count={count}")

    await bench.db.write(pages, 1)  # SQLite takes what the file has already
    big = Unit(
        run_id=run_id,
        epoch=1,
        finishes=(
            Finish(
                block_run_id=unit.finishes[0].block_run_id,
                attempt=1,
                outcome=Outcome.COMPLETED,
                status=DONE,
                outputs='"' + "x" * 2_000_000 + '"',
            ),
        ),
    )
    with pytest.raises(StoreUnavailable):
        await bench.flush(big)
    await bench.db.write(pages, 1_000_000)
    assert await bench.flush(big) == [Verdict()]
    await bench.db.close()


async def test_a_journal_that_cannot_connect_at_first_connects_later(postgres_url: str) -> None:
    bench = await bench_on(postgres_url)
    unit, _ = await step(bench)
    async with wire(postgres_url) as proxy, asyncio.TaskGroup() as group:
        await proxy.down()
        journal = Journal(PostgresJournal(proxy.url, bench.me))
        group.create_task(journal.run())
        await asyncio.sleep(0.1)
        await proxy.up()
        assert await journal.submit(unit) == Verdict()
        journal.stop()
    await bench.db.close()


async def test_the_journal_of_a_node_that_was_fenced_at_once_tells_its_callers(postgres_url: str) -> None:
    bench = await bench_on(postgres_url)
    unit, _ = await step(bench)
    await bench.db.write(nodes.fence, [bench.me], now=clock.now())
    journal = Journal(PostgresJournal(postgres_url, bench.me))
    async with asyncio.TaskGroup() as group:
        group.create_task(journal.run())
        with pytest.raises(LeaseLost):
            await asyncio.wait_for(journal.submit(unit), 5)
        journal.stop()
    await bench.db.close()


async def test_times_are_in_order_though_the_caller_looked_at_the_clock_early(bench: Bench) -> None:
    """Whoever waits for a connection or a lock meanwhile finds what was made after his `now`."""
    early = clock.now()
    waiting = await bench.launch(await bench.new(), await bench.new(), claim=False)
    (run,) = await bench.db.write(admit, bench.claimer(free=1), now=early)
    assert run.id == waiting[0].run.id
    await bench.db.write(ownership.cancel, waiting[1].run.id, reason="test", now=early)
    other, _ = await bench.running()
    await bench.db.write(ownership.abort, other.id, bench.me, 1, reason="test", now=early)
