"""Taking over triggers from Mage in one transaction, or only saying what that would do."""

from collections.abc import Sequence

from app.scheduler import sync
from app.scheduler.mage_plan import Line, Place, Result, decide
from app.scheduler.sync import By
from app.store import adopt, ids, limits
from app.store.adopt import Holdings
from app.store.db import Tx
from app.store.mage import MageRows
from app.store.sql import lock_named

_IDS = "pipeline_schedule"


def rehearse(rows: MageRows, here: Holdings, place: Place) -> list[Line]:
    """The report without doing anything."""
    used = {rows.last_id, *here.deleted, *(held.row.id for held in here.live)}
    numbers = iter(range(max(used) + 1, max(used) + 1 + len(here.live)))
    return decide(rows, here, place, lambda: next(numbers)).lines


def take_over(tx: Tx, rows: MageRows, place: Place, *, by: By) -> list[Line]:
    """Do it, all or nothing; returns the report."""
    lock_named(tx, "triggers")  # services that read triggers.yaml at this moment come before or after
    ids.keep_clear(tx, _IDS, rows.last_id)
    plan = decide(rows, adopt.holdings(tx), place, lambda: ids.take_block(tx, _IDS, 1))
    for move in plan.moves:
        adopt.change_id(tx, move.old_id, move.new_id)
        _move_limit(tx, move.old_id, move.new_id, by)
    for put in plan.puts:
        sync.put(tx, put.id, put.values, by=by, new=put.new)
    return plan.lines


def _move_limit(tx: Tx, old_id: int, new_id: int, by: By) -> None:
    old, new = f"schedule:{old_id}", f"schedule:{new_id}"
    cap = limits.limits(tx, old).get(old)
    for scope, value in sorted({old: None, new: cap}.items()):  # in key order, as all locks
        limits.set_limit(tx, scope, value, now=by.now)


def summary(lines: Sequence[Line], *, dry_run: bool) -> str:
    """The report in one sentence.

    >>> summary([Line(kind="trigger", name="t", result=Result.UNCHANGED)], dry_run=False)
    'Nothing to do: 1 unchanged.'
    """
    numbers = {result: sum(line.result is result for line in lines) for result in Result}
    told = ", ".join(f"{number} {result}" for result, number in numbers.items() if number) or "nothing found"
    if not (numbers[Result.TAKEN] or numbers[Result.CHANGED]):
        return f"Nothing to do: {told}."
    return f"{'It would be' if dry_run else 'Done'}: {told}."
