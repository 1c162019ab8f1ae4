-- What is correct, as queries: each must return no row, on both databases, at any moment.
-- A query starts with a line `-- I<n> <what it says>`. What needs the frozen graph or arithmetic on dates is
-- in invariants.py beside this file.

-- I1 one run per slot of a trigger
SELECT pipeline_schedule_id, execution_date FROM pipeline_run WHERE cause = 'tick'
GROUP BY pipeline_schedule_id, execution_date HAVING count(*) > 1;

-- I2 the ledger is never ahead of the cursor
SELECT t.pipeline_schedule_id, t.execution_date FROM schedule_slot t
JOIN pipeline_schedule s ON s.id = t.pipeline_schedule_id
WHERE s.cursor_at IS NULL OR t.execution_date > s.cursor_at OR t.until > s.cursor_at;

-- I3 every run of a tick is in the ledger
SELECT r.id FROM pipeline_run r LEFT JOIN schedule_slot t ON t.pipeline_run_id = r.id
WHERE r.cause = 'tick' AND (t.pipeline_run_id IS NULL OR t.execution_date <> r.execution_date
  OR t.pipeline_schedule_id <> r.pipeline_schedule_id);

-- I4 a block is completed iff exactly one attempt completed, or it was carried over
SELECT b.id FROM block_run b
LEFT JOIN block_attempt a ON a.block_run_id = b.id AND a.outcome = 'completed' AND a.kind = 'block'
WHERE (b.status = 'completed' AND b.carried_from IS NULL AND b.children IS NULL) <> (a.block_run_id IS NOT NULL);

-- I6 attempts of one block never overlap, and their numbers have no gap
SELECT block_run_id, attempt FROM (
  SELECT block_run_id, attempt, e_seq, s_seq,
    lead(s_seq) OVER (PARTITION BY block_run_id ORDER BY attempt) AS next_start,
    lead(attempt) OVER (PARTITION BY block_run_id ORDER BY attempt) AS next_attempt,
    row_number() OVER (PARTITION BY block_run_id ORDER BY attempt) AS number
  FROM block_attempt) x
WHERE number <> attempt OR e_seq < s_seq
  OR (next_attempt IS NOT NULL AND (e_seq IS NULL OR e_seq > next_start));

-- I7 the attempt counter is the number of attempts; those that count never exceed the budget
SELECT b.id FROM block_run b LEFT JOIN block_attempt a ON a.block_run_id = b.id
GROUP BY b.id, b.attempt, b.max_attempts
HAVING b.attempt <> count(a.attempt)
  OR sum(CASE WHEN a.kind = 'block' AND a.outcome IN ('completed', 'failed', 'timeout', 'crashed') THEN 1 ELSE 0 END)
    > b.max_attempts;

-- I8 epochs only grow with attempts and never exceed the run's
SELECT block_run_id, attempt FROM (
  SELECT a.block_run_id, a.attempt, a.epoch, r.epoch AS run_epoch,
    lag(a.epoch) OVER (PARTITION BY a.block_run_id ORDER BY a.attempt) AS before
  FROM block_attempt a JOIN block_run b ON b.id = a.block_run_id JOIN pipeline_run r ON r.id = b.pipeline_run_id) x
WHERE epoch < before OR epoch > run_epoch;

-- I9 an open attempt belongs to a running run, at its present epoch and owner; the block's own to a running block
SELECT a.block_run_id FROM block_attempt a JOIN block_run b ON b.id = a.block_run_id
JOIN pipeline_run r ON r.id = b.pipeline_run_id
WHERE a.ended_at IS NULL
  AND (r.status <> 'running' OR r.epoch <> a.epoch OR r.owner <> a.node_id
    OR (a.kind = 'block' AND b.status <> 'running'));

-- I9b a running block has an open attempt
SELECT b.id FROM block_run b
LEFT JOIN block_attempt a ON a.block_run_id = b.id AND a.ended_at IS NULL AND a.kind = 'block'
WHERE b.status = 'running' AND a.block_run_id IS NULL;

-- I10 a terminal run has nothing alive under it
SELECT r.id FROM pipeline_run r JOIN block_run b ON b.pipeline_run_id = r.id
WHERE r.completed_at IS NOT NULL AND b.status IN ('initial', 'queued', 'running');

-- I10b nor an attempt that is open
SELECT r.id FROM pipeline_run r JOIN block_run b ON b.pipeline_run_id = r.id
JOIN block_attempt a ON a.block_run_id = b.id WHERE r.completed_at IS NOT NULL AND a.ended_at IS NULL;

-- I11 a completed run has no block that is not satisfied
SELECT r.id FROM pipeline_run r JOIN block_run b ON b.pipeline_run_id = r.id
WHERE r.status = 'completed' AND b.status NOT IN ('completed', 'condition_failed', 'skipped');

-- I12 times are in order
SELECT id FROM pipeline_run WHERE started_at < created_at OR completed_at < coalesce(started_at, created_at);

-- I12b so are those of blocks
SELECT id FROM block_run WHERE completed_at < started_at;

-- I13 a running run's owner is a node
SELECT r.id FROM pipeline_run r LEFT JOIN node n ON n.id = r.owner WHERE r.status = 'running' AND n.id IS NULL;

-- I15 skip_if_previous_running: no two runs of such a trigger overlap, as long as it has said so
SELECT a.id, b.id FROM pipeline_run a
JOIN pipeline_run b ON a.pipeline_schedule_id = b.pipeline_schedule_id AND a.s_seq < b.s_seq
JOIN run_limit l ON l.scope = 'schedule:' || a.pipeline_schedule_id AND l.cap = 1
WHERE (a.e_seq IS NULL OR a.e_seq > b.s_seq)
  AND b.s_seq > (SELECT max(h.seq) FROM run_limit_history h WHERE h.scope = l.scope);

-- I16 nothing starts after its run's cancel was asked for, but what is told of it
SELECT a.block_run_id FROM block_attempt a JOIN block_run b ON b.id = a.block_run_id
JOIN pipeline_run r ON r.id = b.pipeline_run_id WHERE a.started_at > r.cancel_requested_at
  AND a.kind = 'block';

-- I17 deadlines hold: what a timeout ended had passed it, and nothing outlives it by a takeover and a grace
SELECT id FROM pipeline_run
WHERE (status_reason = 'timeout' AND completed_at < deadline_at)
  OR (completed_at IS NOT NULL AND started_at IS NOT NULL AND deadline_at < started_at);

-- I19 an SLA is missed iff the run was not over by then, and is said to be so once and whole
SELECT id FROM pipeline_run
WHERE passed_sla <> (sla_passed_at IS NOT NULL) OR sla_passed_at < sla_at
  OR (sla_at IS NULL AND sla_passed_at IS NOT NULL)
  OR (completed_at > sla_at AND sla_passed_at IS NULL);

-- I19b what ended for its SLA had missed it
SELECT id FROM pipeline_run WHERE status_reason = 'sla' AND sla_passed_at IS NULL;

-- I19c only a slot that was missed can be late, and not before its time
SELECT pipeline_schedule_id, execution_date FROM schedule_slot
WHERE (sla_at IS NOT NULL AND outcome <> 'missed') OR sla_passed_at < sla_at
  OR (sla_at IS NULL AND sla_passed_at IS NOT NULL);

-- I20 one run a dedupe key
SELECT dedupe_scope, dedupe_key FROM pipeline_run WHERE dedupe_key IS NOT NULL
GROUP BY dedupe_scope, dedupe_key HAVING count(*) > 1;

-- I28 log lines belong to blocks of their run
SELECT l.pipeline_run_id, l.pos FROM block_log l LEFT JOIN block_run b ON b.id = l.block_run_id
WHERE l.block_run_id IS NOT NULL AND (b.id IS NULL OR b.pipeline_run_id <> l.pipeline_run_id);

-- I29 a block that runs once an item has as many children as it says, and no attempt of its own
SELECT t.id FROM block_run t LEFT JOIN block_run c ON c.parent_id = t.id
WHERE t.children IS NOT NULL AND t.carried_from IS NULL GROUP BY t.id, t.children, t.attempt
HAVING count(c.id) <> t.children OR t.attempt > 0;

-- I30 it is over exactly when all of them are
SELECT t.id FROM block_run t
WHERE t.children IS NOT NULL AND t.status = 'completed'
  AND EXISTS (SELECT 1 FROM block_run c WHERE c.parent_id = t.id AND c.completed_at IS NULL);

-- I31 a child belongs to a planned block of the same run
SELECT c.id FROM block_run c LEFT JOIN block_run t ON t.id = c.parent_id
WHERE c.parent_id IS NOT NULL AND (t.id IS NULL OR t.children IS NULL OR t.pipeline_run_id <> c.pipeline_run_id);

-- I32 what ran is of the block or of a hook of it, and a hook ends once
SELECT block_run_id, hook FROM block_attempt WHERE hook IS NOT NULL AND outcome NOT IN ('lost')
GROUP BY block_run_id, hook HAVING count(*) > 1;

-- I33 a secret lies sealed
SELECT name FROM secret WHERE value NOT LIKE 'gAAAA%';

-- I34 what is pruned of a ledger lies behind the cursor
SELECT id FROM pipeline_schedule WHERE pruned_until IS NOT NULL AND (cursor_at IS NULL OR pruned_until > cursor_at);

-- I35 what was carried over is still there, with what it has left
SELECT h.id FROM block_run h LEFT JOIN block_run s ON s.id = h.carried_from
WHERE h.carried_from > 0 AND s.id IS NULL;

-- I36 no row names a file that is to be deleted
SELECT t.run_id FROM tombstone t JOIN block_run b ON b.pipeline_run_id = t.run_id WHERE b.outputs LIKE '%"path":%';
