"""Outputs that a service of the same project has left, read without disturbing it: for runs of single blocks."""

from pathlib import Path
from typing import Any

from app.scheduler.launch import Carried
from app.settings import Settings
from app.store import runs
from app.store.db import dumps, is_there, loads
from app.store.opening import open_database

#: `carried_from` of an output whose block run is in another database.
ELSEWHERE = 0


async def borrowed(service: Settings, pipeline_uuid: str, blocks: tuple[str, ...]) -> Carried:
    """What the newest completed run of the service left of these blocks; empty when there is no such store."""
    if not is_there(service.store_url):
        return {}
    db = open_database(service.store_url, exclusive=False)
    await db.open()
    try:
        found = await db.read(runs.left_outputs, pipeline_uuid, blocks)
    finally:
        await db.close()
    return {
        uuid: (ELSEWHERE, dumps([located(output, service.artifacts) for output in loads(outputs)]))
        for uuid, (_, outputs) in found.items()
    }


def located(output: dict[str, Any], artifacts: Path) -> dict[str, Any]:
    """An output whose file, if it has one, is named by its full path; the list that children left, too."""
    if output.get("kind") == "list":
        return {**output, "refs": [[located(ref, artifacts) for ref in refs] for refs in output["refs"]]}
    return {**output, "path": str(artifacts / output["path"])} if "path" in output else output
