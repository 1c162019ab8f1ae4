"""The journal's Postgres side: one server-side function call a flush, on a connection of its own.

The function lives in `pg_temp` of that connection: no migration, and no skew between replicas of two
versions. It loops over statements by primary key: plans that an empty table or a partial index cannot spoil.
"""

import asyncio
import logging
from collections.abc import Sequence
from itertools import chain, repeat
from typing import Any

import asyncpg

from app.errors import LeaseLost, StoreUnavailable
from app.models.states import BLOCK_TERMINAL
from app.store.connecting import FAILURES, READ_ONLY, away, connect_raw, is_lost, is_unwell
from app.store.db import dumps
from app.store.journal import RETRY_S, Answer
from app.store.units import Mismatch, Unit, Verdict

log = logging.getLogger(__name__)

_TIMED_OUT, _FENCED = "57014", "RW002"
#: a row was locked, the answer took too long, deadlock, serialization: the same unit may fit the next time
_LATER = frozenset({"55P03", _TIMED_OUT, "40P01", "40001"})
_PLANNER = {"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off", "jit": "off"}

_FUNCTION = """
CREATE OR REPLACE FUNCTION pg_temp.journal(
  me text, expected int8, ids int8[], epochs int8[],
  f_run int[], f_block int8[], f_try int[], f_outcome text[], f_status text[], f_done bool[], f_reason text[],
  f_outputs text[], f_error text[], f_evidence text[], f_metrics text[], f_code text[], f_wake timestamptz[], f_hook bool[],
  o_run int[], o_block int8[], o_status text[], o_done bool[], o_reason text[], o_outputs text[],
  w_run int[], w_block int8[], w_wake timestamptz[],
  s_run int[], s_block int8[], s_try int[], s_hook text[],
  c_run int[], c_status text[], c_reason text[], c_metrics text[],
  l_run int[], l_pos int8[], l_block int8[], l_try int[], l_lines text[],
  p_run int[], p_block int8[], p_children int[],
  k_run int[], k_id int8[], k_parent int8[], k_uuid text[], k_index int[], k_pos int[], k_max int[],
  k_from int8[], k_outputs text[]
) RETURNS text[] LANGUAGE plpgsql AS $f$
#variable_conflict use_column
DECLARE
  state text[] := '{}';  cancelled timestamptz;  deadline timestamptz;  n int;  touched int;  stamp timestamptz;  ends timestamptz;
BEGIN
  UPDATE node_journal SET seq = seq + 1 WHERE node_id = me AND seq = expected AND seq >= 0;
  IF NOT FOUND THEN RAISE EXCEPTION 'fenced' USING errcode = 'RW002'; END IF;
  FOR i IN 1..cardinality(ids) LOOP
    SELECT r.cancel_requested_at, r.deadline_at INTO cancelled, deadline FROM pipeline_run r
     WHERE r.id = ids[i] AND r.owner = me AND r.epoch = epochs[i] AND r.started_at IS NOT NULL
       AND r.completed_at IS NULL FOR NO KEY UPDATE;
    IF NOT FOUND THEN state[i] := 'lost';
    ELSIF cancelled IS NOT NULL THEN state[i] := 'cancel';
    ELSIF deadline <= clock_timestamp() THEN state[i] := 'deadline';
    ELSE state[i] := 'go'; END IF;
  END LOOP;
  stamp := clock_timestamp();
  FOR i IN 1..cardinality(f_run) LOOP
    CONTINUE WHEN state[f_run[i]] = 'lost';
    UPDATE block_attempt a SET ended_at = stamp, e_seq = nextval('event_seq'), outcome = f_outcome[i],
        error = f_error[i]::jsonb, evidence = f_evidence[i]::jsonb, code_hash = f_code[i]
     WHERE a.block_run_id = f_block[i] AND a.attempt = f_try[i] AND a.outcome IS NULL;
    GET DIAGNOSTICS touched = ROW_COUNT;
    IF f_hook[i] THEN
      IF touched <> 1 THEN RAISE EXCEPTION 'end of a hook of block run % does not fit', f_block[i] USING errcode = 'RW003'; END IF;
      CONTINUE;
    END IF;
    UPDATE block_run b SET status = f_status[i], status_reason = f_reason[i],
        completed_at = CASE WHEN f_done[i] THEN greatest(stamp, b.started_at) END, outputs = f_outputs[i], error = f_error[i]::jsonb,
        metrics = f_metrics[i]::jsonb, wake_at = f_wake[i]
     WHERE b.id = f_block[i] AND b.status = 'running' AND b.attempt = f_try[i];
    GET DIAGNOSTICS n = ROW_COUNT;
    IF touched + n <> 2 THEN RAISE EXCEPTION 'finish of block run % does not fit', f_block[i] USING errcode = 'RW003'; END IF;
  END LOOP;
  FOR i IN 1..cardinality(p_run) LOOP
    CONTINUE WHEN state[p_run[i]] = 'lost';
    UPDATE block_run b SET status = 'queued', children = p_children[i], started_at = stamp
     WHERE b.id = p_block[i] AND b.status = 'initial' AND b.children IS NULL;
    IF NOT FOUND THEN RAISE EXCEPTION 'plan of block run % does not fit', p_block[i] USING errcode = 'RW003'; END IF;
  END LOOP;
  INSERT INTO block_run(id, pipeline_run_id, position, block_uuid, status, attempt, max_attempts, parent_id, item_index,
      carried_from, outputs, completed_at)
   SELECT k.id, ids[k.run], k.pos, k.uuid, CASE WHEN k.source IS NULL THEN 'initial' ELSE 'completed' END, 0, k.most,
      k.parent, k.item, k.source, k.left_, CASE WHEN k.source IS NOT NULL THEN stamp END
     FROM unnest(k_run, k_id, k_parent, k_uuid, k_index, k_pos, k_max, k_from, k_outputs)
       AS k(run, id, parent, uuid, item, pos, most, source, left_)
    WHERE state[k.run] <> 'lost';
  FOR i IN 1..cardinality(o_run) LOOP
    CONTINUE WHEN state[o_run[i]] = 'lost';
    UPDATE block_run b SET status = o_status[i], status_reason = o_reason[i], wake_at = NULL,
        outputs = coalesce(o_outputs[i], b.outputs), completed_at = CASE WHEN o_done[i] THEN greatest(stamp, b.started_at) END
     WHERE b.id = o_block[i] AND b.status IN ('initial', 'queued');
    IF NOT FOUND THEN RAISE EXCEPTION 'end of block run % does not fit', o_block[i] USING errcode = 'RW003'; END IF;
  END LOOP;
  FOR i IN 1..cardinality(w_run) LOOP
    CONTINUE WHEN state[w_run[i]] = 'lost';
    UPDATE block_run b SET wake_at = w_wake[i] WHERE b.id = w_block[i] AND b.status = 'running';
    IF NOT FOUND THEN RAISE EXCEPTION 'wait of block run % does not fit', w_block[i] USING errcode = 'RW003'; END IF;
  END LOOP;
  FOR i IN 1..cardinality(s_run) LOOP
    CONTINUE WHEN state[s_run[i]] = 'lost' OR (state[s_run[i]] <> 'go' AND s_hook[i] IS NULL);
    IF s_hook[i] IS NULL THEN
      UPDATE block_run b SET status = 'running', attempt = s_try[i], started_at = coalesce(b.started_at, stamp), wake_at = NULL
       WHERE b.id = s_block[i] AND b.attempt = s_try[i] - 1 AND b.status IN ('initial', 'queued');
    ELSE
      UPDATE block_run b SET attempt = s_try[i] WHERE b.id = s_block[i] AND b.attempt = s_try[i] - 1;
    END IF;
    IF NOT FOUND THEN RAISE EXCEPTION 'start of block run % does not fit', s_block[i] USING errcode = 'RW003'; END IF;
    INSERT INTO block_attempt(block_run_id, attempt, kind, hook, epoch, node_id, started_at, s_seq)
     VALUES (s_block[i], s_try[i], CASE WHEN s_hook[i] IS NULL THEN 'block' ELSE 'hook' END, s_hook[i], epochs[s_run[i]], me,
             stamp, nextval('event_seq'));
  END LOOP;
  FOR i IN 1..cardinality(c_run) LOOP
    CONTINUE WHEN state[c_run[i]] = 'lost';
    SELECT greatest(stamp, r.started_at, CASE WHEN c_reason[i] = 'timeout' THEN r.deadline_at END) INTO ends
      FROM pipeline_run r WHERE r.id = ids[c_run[i]];
    UPDATE pipeline_run r SET status = c_status[i], completed_at = ends,
        e_seq = nextval('event_seq'), metrics = c_metrics[i]::jsonb,
        status_reason = CASE WHEN c_status[i] = 'cancelled' THEN coalesce(r.status_reason, c_reason[i]) ELSE c_reason[i] END,
        status_detail = CASE WHEN c_status[i] = 'cancelled' THEN r.status_detail END,
        passed_sla = r.passed_sla OR coalesce(r.sla_at < ends, false) OR c_reason[i] IS NOT DISTINCT FROM 'sla',
        sla_passed_at = coalesce(r.sla_passed_at, CASE WHEN r.sla_at < ends OR c_reason[i] = 'sla'
          THEN greatest(ends, r.sla_at) END)
     WHERE r.id = ids[c_run[i]] AND r.completed_at IS NULL AND NOT EXISTS (SELECT 1 FROM block_run b
       WHERE b.pipeline_run_id = r.id AND b.status IN ('initial', 'queued', 'running'));
    IF NOT FOUND THEN RAISE EXCEPTION 'end of run % does not fit', ids[c_run[i]] USING errcode = 'RW003'; END IF;
  END LOOP;
  FOR i IN 1..cardinality(l_run) LOOP
    CONTINUE WHEN state[l_run[i]] = 'lost';
    INSERT INTO block_log(pipeline_run_id, pos, block_run_id, attempt, lines)
     VALUES (ids[l_run[i]], l_pos[i], l_block[i], l_try[i], l_lines[i]);
  END LOOP;
  RETURN state;
END $f$
"""
_PARAMETERS = 52
_CALL = f"SELECT pg_temp.journal({', '.join(f'${n}' for n in range(1, _PARAMETERS + 1))})"


class PostgresJournal:
    """Flushes on one session; PgBouncer in transaction mode cannot carry it."""

    def __init__(self, url: str, node_id: str) -> None:
        self._url, self._node_id = url, node_id
        self._connection: Any = None
        self._call: Any = None
        self._seq = self._pid = 0

    async def open(self) -> None:
        """Connect, make the function, read how far this node's journal has come. Raises StoreUnavailable."""
        self._connection = await connect_raw(self._url, lock_timeout="500", **_PLANNER)
        try:
            await self._connection.execute(_FUNCTION)
            self._call = await self._connection.prepare(_CALL)
            await self._look()
        except FAILURES as error:
            self._drop()
            raise away(error) from error
        except BaseException:
            self._drop()
            raise

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def close(self) -> None:
        """Disconnect."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.close(timeout=5)
            except FAILURES as error:
                log.debug("journal: %s", error)
                connection.terminate()

    async def flush(self, units: Sequence[Unit]) -> list[Answer]:
        """One call; unit by unit when one of them does not fit or meets a lock."""
        try:
            return await self._flush_all(units)
        except asyncpg.PostgresError as error:
            if error.sqlstate == _FENCED:
                return [LeaseLost("this node has been fenced") for _ in units]
            if error.sqlstate == READ_ONLY:
                self._drop()  # a standby since a failover: another connection may lead to the primary
            if error.sqlstate == _TIMED_OUT or (is_unwell(error.sqlstate) and error.sqlstate not in _LATER):
                raise away(error) from error
            log.debug("journal: a flush of %d units was refused (%s); one by one", len(units), error)
        return await self._one_by_one(units)

    async def _one_by_one(self, units: Sequence[Unit]) -> list[Answer]:
        answers: list[Answer] = []
        behind: set[int] = set()
        for unit in units:
            # What comes after a unit that has to wait is of no use before it.
            answer = None if unit.run_id in behind else await self._flush_one(unit, first=not answers)
            if answer is None:
                behind.add(unit.run_id)
            answers.append(answer)
        return answers

    async def _flush_one(self, unit: Unit, *, first: bool) -> Answer:
        """The answer for one unit. Only the first may say that the database is away: others are written by then."""
        try:
            return (await self._flush_all([unit]))[0]
        except StoreUnavailable:
            if first:
                raise
            return None
        except asyncpg.PostgresError as error:
            if error.sqlstate == _FENCED:
                return LeaseLost("this node has been fenced")
            if error.sqlstate in _LATER or (is_unwell(error.sqlstate) and not first):
                return None
            if is_unwell(error.sqlstate):
                raise away(error) from error
            return Mismatch(str(error))

    async def _flush_all(self, units: Sequence[Unit]) -> list[Answer]:
        runs = {key: i for i, key in enumerate(sorted({(u.run_id, u.epoch) for u in units}), 1)}
        if self._connection is None:
            await self.open()
        values = parameters(self._node_id, self._seq, units, runs)
        try:
            states: list[str] = await self._call.fetchval(*values)
        except FAILURES as error:
            if not is_lost(error):
                raise
            return await self._after_loss(error, units)
        self._seq += 1
        return [_answer(unit, states[runs[unit.run_id, unit.epoch] - 1]) for unit in units]

    async def _after_loss(self, error: BaseException, units: Sequence[Unit]) -> list[Answer]:
        """The connection broke: whether the flush was committed is read from `node_journal`, never guessed.

        Until that is known nothing else may be written. Raises StoreUnavailable when it was not committed.
        """
        expected, old = self._seq + 1, self._pid
        for delay in chain(RETRY_S, repeat(RETRY_S[-1])):
            self._drop()
            try:
                await self.open()
                await self._end_session(old)
                await self._look()
                if self._seq == expected:
                    return [await self._found(unit) for unit in units]
                break
            except (StoreUnavailable, *FAILURES) as again:
                log.warning("journal: is the last flush on disk? %s", again)
                await asyncio.sleep(delay)
        raise away(error) from error

    async def _end_session(self, pid: int) -> None:
        """The server may not have seen the connection go, and do the flush yet. Raises StoreUnavailable until it is over."""
        there = await self._connection.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE pid = $1 AND pid <> pg_backend_pid() AND query LIKE '%pg_temp.journal%'",
            pid,
        )
        if there:
            raise StoreUnavailable("the session of the last flush is still ending")

    async def _found(self, unit: Unit) -> Answer:
        """The answer to a unit that was committed, read from the rows: were its starts written?"""
        row = await self._connection.fetchrow(
            "SELECT owner = $2 AND epoch = $3 AS mine, cancel_requested_at IS NOT NULL AS cancel,"
            " (SELECT count(*) FROM block_attempt WHERE (block_run_id, attempt) IN"
            "  (SELECT * FROM unnest($4::int8[], $5::int[]))) AS started"
            " FROM pipeline_run WHERE id = $1",
            unit.run_id,
            self._node_id,
            unit.epoch,
            [start.block_run_id for start in unit.starts],
            [start.attempt for start in unit.starts],
        )
        if row is None or not row["mine"]:
            return _answer(unit, "lost")
        refused = "cancel" if row["cancel"] else "deadline"
        return _answer(unit, "go" if row["started"] == len(unit.starts) else refused)

    async def _look(self) -> None:
        """How far the journal has come, and which process of the server says so: a pooler tells a number of its own."""
        row = await self._connection.fetchrow(
            "SELECT seq, pg_backend_pid() FROM node_journal WHERE node_id = $1 AND seq >= 0", self._node_id
        )
        if row is None:
            raise LeaseLost("this node has been fenced")
        self._seq, self._pid = row


def _answer(unit: Unit, state: str) -> Answer:
    if state == "lost":
        return LeaseLost(f"run {unit.run_id} is no longer this node's")
    return Verdict(state) if state in ("cancel", "deadline") else Verdict()  # type: ignore[arg-type]


def parameters(node_id: str, seq: int, units: Sequence[Unit], runs: dict[tuple[int, int], int]) -> list[Any]:
    """The units as parallel arrays, in the order of the function's parameters."""
    f = [(runs[u.run_id, u.epoch], x) for u in units for x in u.finishes]
    o = [(runs[u.run_id, u.epoch], x) for u in units for x in u.settles]
    w = [(runs[u.run_id, u.epoch], x) for u in units for x in u.waits]
    s = [(runs[u.run_id, u.epoch], x) for u in units for x in u.starts]
    c = [(runs[u.run_id, u.epoch], u.close) for u in units if u.close]
    p = [(runs[u.run_id, u.epoch], x) for u in units for x in u.plans]
    k = [(runs[u.run_id, u.epoch], x) for u in units for x in u.children]
    log_ = [(runs[u.run_id, u.epoch], x) for u in units for x in u.chunks]
    return [
        node_id,
        seq,
        [run_id for run_id, _ in runs],
        [epoch for _, epoch in runs],
        *_columns(
            f,
            lambda x: (
                x.block_run_id,
                x.attempt,
                x.outcome.value,
                x.status.value,
                x.status in BLOCK_TERMINAL,
            ),
            lambda x: (x.reason, x.outputs, _json(x.error), _json(x.evidence), _json(x.metrics), x.code_hash),
            lambda x: (x.wake_at, x.hook),
            width=13,
        ),
        *_columns(
            o,
            lambda x: (x.block_run_id, x.status.value, x.status in BLOCK_TERMINAL, x.reason, x.outputs),
            width=5,
        ),
        *_columns(w, lambda x: (x.block_run_id, x.wake_at), width=2),
        *_columns(s, lambda x: (x.block_run_id, x.attempt, x.hook), width=3),
        *_columns(c, lambda x: (x.status.value, x.reason, _json(x.metrics)), width=3),
        *_columns(log_, lambda x: (x.pos, x.block_run_id, x.attempt, x.lines), width=4),
        *_columns(p, lambda x: (x.block_run_id, x.children), width=2),
        *_columns(
            k,
            lambda x: (x.id, x.parent_id, x.block_uuid, x.item_index, x.position, x.max_attempts),
            lambda x: (x.carried_from, x.outputs),
            width=8,
        ),
    ]


def _columns(rows: list[tuple[int, Any]], *parts: Any, width: int) -> list[list[Any]]:
    """Rows turned into `1 + width` columns, the run's index first."""
    if not rows:
        return [[] for _ in range(width + 1)]
    lines = [(index, *(value for part in parts for value in part(item))) for index, item in rows]
    return [list(column) for column in zip(*lines, strict=True)]


def _json(value: Any) -> str | None:
    return None if value is None else dumps(dict(value))
