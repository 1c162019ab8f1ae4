"""`runwright pipelines`: what the project has."""

from app.cli import tables
from app.cli.exits import Exit
from app.cli.service import find_service
from app.client import PipelineDefinition


def ls(server: str | None, output: str) -> int:
    """Show the pipelines."""
    with find_service(server).client() as client:
        found = list(client.pipelines())
    tables.show_all(found, _row, output, empty="the project has no pipelines")
    return Exit.OK


def _row(pipeline: PipelineDefinition) -> dict[str, object]:
    return {
        "pipeline": pipeline.uuid,
        "status": pipeline.status,
        "blocks": len(pipeline.blocks),
        "description": pipeline.error or pipeline.description,
    }


def show(server: str | None, uuid: str, output: str) -> int:
    """Show one pipeline."""
    with find_service(server).client() as client:
        pipeline = client.pipeline(uuid)
    if output == "json":
        tables.show_one(pipeline.model_dump(mode="json"), output)
        return Exit.OK
    tables.show_one(pipeline.model_dump(exclude={"blocks"}), output)
    rows = [
        {"block": block.uuid, "type": block.type, "after": block.upstream_blocks, "file": block.file}
        for block in pipeline.blocks
    ]
    if rows:
        tables.show(rows, output)
    return Exit.OK
