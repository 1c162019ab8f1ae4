"""Pipelines and blocks of a project in a test of its own: in this process, on a clock that nothing waits for.

The decisions are the service's own (order, rules, retries, sensors, hooks, dynamic blocks); only the database, the
worker processes and the time are stood in for. Nothing is left behind: no file, no process, no import path.
"""

from app.testing.dates import due
from app.testing.reports import AttemptReport, BlockReport, Fault, Line, RunReport
from app.testing.running import run_block, run_pipeline

__all__ = [
    "AttemptReport",
    "BlockReport",
    "Fault",
    "Line",
    "RunReport",
    "due",
    "run_block",
    "run_pipeline",
]
