"""`run_pipeline` and `run_block`: from what a test asks for to what it looks at."""

import asyncio
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from app import clock
from app.errors import InvalidInput, UnknownBlock
from app.models.pipeline import Block, Pipeline
from app.pipelines.catalogue import Catalogue
from app.scheduler.catalogues import fresh_catalogue
from app.scheduler.launch import LaunchRequest
from app.testing.alone import Alone
from app.testing.dates import trigger_of
from app.testing.reporting import run_report
from app.testing.reports import BlockReport, RunReport
from app.testing.stage import Stage, importable
from app.testing.virtual import virtual_time
from app.testing.world import Surroundings, World, request_of

T = TypeVar("T")
#: How long a run may go on by the virtual clock: a sensor that is never met is given up then.
WITHIN = timedelta(days=1)


def run_pipeline(
    project: str | Path,
    pipeline_uuid: str,
    *,
    at: datetime | None = None,
    variables: Mapping[str, Any] | None = None,
    replace: Mapping[str, Any] | None = None,
    takes: Mapping[str, float] | None = None,
    trigger: str | None = None,
    others: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] | None = None,
    event: Mapping[str, Any] | None = None,
    answers: Mapping[str, Callable[[Mapping[str, Any]], Any]] | None = None,
    skip_sensors: bool = False,
    allow_blocks_to_fail: bool = False,
    within: timedelta = WITHIN,
    env: str = "prod",
) -> RunReport:
    """Run a pipeline to its end, or for `within` of virtual time; sensors and retries wait for nothing.

    `at` (aware) is the execution date and the start of the virtual clock; None is now. `replace` gives what stands in
    for blocks, conditions and callbacks by uuid: a value, an exception, or a function that is called like the block.
    `takes` are virtual seconds that an attempt of a block takes, 0 for others. `trigger` is a trigger of its
    `triggers.yaml`, whose variables, interval, time zone and settings the run has. `others` tells how runs of other
    pipelines ended that are not to run here. `answers` are functions for what blocks ask of the service.

    Raises PipelineNotFound, PipelineInvalid, InvalidInput; what blocks raise is in the report.
    """
    request = request_of(
        pipeline_uuid,
        execution_date=at,
        variables=dict(variables or {}),
        event_variables=dict(event or {}),
        skip_sensors=skip_sensors,
    )
    play = Play(replace or {}, takes or {}, trigger, allow_blocks_to_fail, within)
    return _outside_loops(
        lambda: _run_pipeline(
            surroundings(project, env, others=others, secrets=secrets, answers=answers), request, play
        )
    )


@dataclass(frozen=True, slots=True)
class Play:
    """How a run is played, besides what it is asked for."""

    replace: Mapping[str, Any]
    takes: Mapping[str, float]
    trigger: str | None
    lenient: bool
    within: timedelta


def _run_pipeline(around: Surroundings, request: LaunchRequest, play: Play) -> RunReport:
    uuid, catalogue = request.pipeline_uuid, around.catalogue
    entry = trigger_of(catalogue, uuid, play.trigger) if play.trigger else None
    _check_names(catalogue.get(uuid), {*play.replace, *play.takes}, catalogue)
    with _world(around, request.execution_date, play.replace, play.takes) as world:
        run_id = world.start(request, trigger=entry, lenient=play.lenient)
        _turn(world, world.wait(run_id, play.within.total_seconds()))
        return run_report(world, run_id)


def surroundings(project: str | Path, env: str, **told: Mapping[str, Any] | None) -> Surroundings:
    """A project as it is now, and what a test tells of the rest of the world."""
    known: dict[str, Any] = {name: value for name, value in told.items() if value is not None}
    return Surroundings(catalogue=fresh_catalogue(Path(project), env), env=env, **known)


def _check_names(pipeline: Pipeline, names: set[str], catalogue: Catalogue) -> None:
    """Refuse names that are nobody's: a typing error must not make a test pass."""
    known: set[str] = set()
    for entry in catalogue.entries():
        for block in entry.pipeline.blocks if entry.pipeline else ():
            known |= {block.uuid, *(hook.uuid for hook in (*block.conditions, *block.callbacks))}
    if unknown := sorted(names - known):
        own = ", ".join(block.uuid for block in pipeline.blocks)
        raise UnknownBlock(f"there is no block '{unknown[0]}'", hint=f"'{pipeline.uuid}' has: {own}")


def run_block(
    project: str | Path,
    block_uuid: str,
    *,
    inputs: Mapping[str, Any] | Sequence[Any] = (),
    variables: Mapping[str, Any] | None = None,
    pipeline: str | None = None,
    at: datetime | None = None,
    event: Mapping[str, Any] | None = None,
    item: int | None = None,
    attempt: int = 1,
    others: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] | None = None,
    answers: Mapping[str, Callable[[Mapping[str, Any]], Any]] | None = None,
    env: str = "prod",
) -> BlockReport:
    """Run one attempt of a block by itself, with its `@test` functions; of a sensor, one poke.

    `inputs` are what its upstream blocks would hand it, by their uuids or in their order. `pipeline` is needed
    where several have a block of that name. `item` is the number of the item for a block below a dynamic one,
    `attempt` what `kwargs["retry"]["attempts"]` tells.

    Raises UnknownBlock, InvalidInput when the inputs are not those of its upstream blocks; what the block raises is in
    the report.
    """

    def run() -> BlockReport:
        around = surroundings(project, env, others=others, secrets=secrets, answers=answers)
        found, block = _find(around.catalogue, block_uuid, pipeline)
        given = _inputs_of(block, inputs)
        request = request_of(
            found.uuid, execution_date=at, variables=dict(variables or {}), event_variables=dict(event or {})
        )
        with _world(around, at, {}, {}) as world:
            alone = Alone(world, found, block, request)
            return _turn(world, alone.run(given, item=item, tries=attempt))

    return _outside_loops(run)


def _find(catalogue: Catalogue, uuid: str, pipeline: str | None) -> tuple[Pipeline, Block]:
    if pipeline is not None:
        found = catalogue.get(pipeline)
        if uuid not in found.by_uuid:
            raise UnknownBlock(f"pipeline '{pipeline}' has no block '{uuid}'")
        return found, found.by_uuid[uuid]
    having = [
        e.pipeline for e in catalogue.entries() if e.pipeline is not None and uuid in e.pipeline.by_uuid
    ]
    if not having:
        raise UnknownBlock(f"no pipeline of the project has a block '{uuid}'")
    if any(found.by_uuid[uuid] != having[0].by_uuid[uuid] for found in having):
        names = ", ".join(found.uuid for found in having)
        raise InvalidInput(
            f"several pipelines have a block '{uuid}'", hint=f"say which: pipeline= one of {names}"
        )
    return having[0], having[0].by_uuid[uuid]


def _inputs_of(block: Block, inputs: Mapping[str, Any] | Sequence[Any]) -> list[tuple[str, Any]]:
    wanted = ", ".join(block.upstream) or "none"
    if isinstance(inputs, Mapping):
        if set(inputs) != set(block.upstream):
            raise InvalidInput(
                f"block '{block.uuid}' has the upstream blocks {wanted};"
                f" inputs are given for {', '.join(inputs) or 'none'}"
            )
        return [(name, inputs[name]) for name in block.upstream]
    if len(inputs) != len(block.upstream):
        raise InvalidInput(
            f"block '{block.uuid}' has the upstream blocks {wanted}; {len(inputs)} inputs are given"
        )
    return list(zip(block.upstream, inputs, strict=True))


@contextmanager
def _world(
    around: Surroundings, at: datetime | None, replace: Mapping[str, Any], takes: Mapping[str, float]
) -> Iterator[World]:
    if at is not None and at.tzinfo is None:
        raise InvalidInput("`at` needs a time zone: datetime(..., tzinfo=UTC)")
    with (
        tempfile.TemporaryDirectory(prefix="runwright-test-") as artifacts,
        importable(around.catalogue.root),
        virtual_time(at or clock.now()) as loop,
    ):
        yield World(around, Stage(loop, replace, takes), Path(artifacts))


def _turn(world: World, work: Coroutine[Any, Any, T]) -> T:
    """Do the work of a test on its loop, and leave the loop empty."""
    stage, loop = world.stage, world.stage.loop
    journal = loop.create_task(world.journal.run(), name="journal")
    main = loop.create_task(work)
    main.add_done_callback(lambda _: stage.tell())
    try:
        stage.until(main.done)
        return main.result()
    finally:
        main.cancel()
        loop.run_until_complete(world.close())
        world.journal.stop()
        loop.run_until_complete(asyncio.gather(journal, main, return_exceptions=True))
        _reraise(world)


def _reraise(world: World) -> None:
    """A fault of the engine is nobody's report."""
    for going in world.runs.values():
        if going.task is not None and not going.task.cancelled() and (error := going.task.exception()):
            raise error


def _outside_loops(work: Callable[[], T]) -> T:
    """Do it here, or in a thread when an event loop runs here: a test may be `async def`."""
    if asyncio._get_running_loop() is None:
        return work()
    found: list[T] = []
    errors: list[BaseException] = []

    def there() -> None:
        try:
            found.append(work())
        except BaseException as error:  # handed to whoever asked, whatever it is
            errors.append(error)

    thread = threading.Thread(target=there, name="runwright.testing")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return found[0]
