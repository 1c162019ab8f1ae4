"""A run as blocks see it: what `trigger_pipeline` returns and `pipeline_run` of a hook is (Mage's attributes)."""

from collections.abc import Iterable
from typing import Any

from app.models.rows import RunRow


def shown(run: RunRow, blocks: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """JSON-safe; `blocks` are (block uuid, status)."""
    return {
        "id": run.id,
        "pipeline_uuid": run.pipeline_uuid,
        "pipeline_schedule_id": run.pipeline_schedule_id,
        "status": run.status.value,
        "execution_date": run.execution_date.isoformat(),
        "created_at": run.created_at.isoformat(),
        "started_at": run.started_at.isoformat() if run.started_at else None,
        "completed_at": run.completed_at.isoformat() if run.completed_at else None,
        "variables": dict(run.variables),
        "block_runs": [{"block_uuid": uuid, "status": str(status)} for uuid, status in blocks],
    }
