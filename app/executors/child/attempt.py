"""One attempt of one block in a worker: file, inputs, function, tests, outputs (Mage: `Block.execute_sync`)."""

from __future__ import annotations

import os

from . import calling, faults, hooks, logs, outputs, packs
from .loading import BlockFile, Loaded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any


def run(call: dict[str, Any], stdout: Any, file: Any = None) -> dict[str, Any]:
    """Run the attempt; its result as a mapping. Raises nothing but what a signal handler raises.

    `file` is what a test runs instead of the block's own file.
    """
    try:
        file = file or BlockFile(call["project"], call["file"])
        inputs = [(uuid, outputs.open_input(refs, call["artifacts"], uuid)) for uuid, refs in call["inputs"]]
        result = _run_block(call, file, inputs, stdout)
    except faults.Terminated:
        raise
    except BaseException as error:
        # SystemExit and KeyboardInterrupt included: whatever a block raises, the attempt has failed.
        result = failure(error, call)
    result["code_hash"] = file.hash if file is not None else None
    return result


def failure(error: BaseException, call: dict[str, Any]) -> dict[str, Any]:
    """The result of an attempt that ended with `error`."""
    path = os.path.join(call["project"], call["file"])
    described = faults.describe(error, call["project"], path)
    error.__traceback__ = None  # its frames hold the inputs
    return {"outcome": "failed", "error": described}


def _run_block(
    call: dict[str, Any], file: BlockFile, inputs: list[tuple[str, Any]], stdout: Any
) -> dict[str, Any]:
    loaded = Loaded(file, call["block"], call["type"], inputs)
    try:
        values = [value for _uuid, value in inputs]
        call["kwargs"].update(packs.kwargs_of(packs.metas_of(call["inputs"], call["artifacts"])))
        kwargs = keywords(call, lambda level, line: stdout.write(logs.MARK + level + line + "\n"))
        if call.get("hook"):
            return hooks.run(loaded, call["hook"], inputs, kwargs)
        run_preprocessers(loaded, values, kwargs)
        returned = _in_this_process(lambda: invoke(loaded, values, kwargs))
        if call["type"] == "sensor":
            return {"outcome": "completed", "outputs": [], "value_false": not returned}
        if call["dynamic"]:
            loaded.unregister()
            refs = [packs.store(returned, call["artifact_dir"], call["artifacts"])]
            run_tests(loaded, calling.as_outputs(returned), kwargs)
            return {"outcome": "completed", "outputs": refs}
        results = calling.as_outputs(returned)
        loaded.unregister()
        of_many = call["item"] is not None
        refs = outputs.store_all(results, call["artifact_dir"], call["artifacts"], of_many)
        run_tests(loaded, results, kwargs)
        return {"outcome": "completed", "outputs": refs}
    finally:
        loaded.unregister()
        loaded.forget_inputs()


def _in_this_process(function: Callable[[], Any]) -> Any:
    """Call it; a child that it forked and that comes back out of it ends here and stores nothing."""
    pid = os.getpid()
    try:
        return function()
    finally:
        if os.getpid() != pid:
            os._exit(0)


def keywords(call: Mapping[str, Any], write: Any) -> dict[str, Any]:
    """The kwargs of the block: what the engine sent, with real datetimes, and what is made here."""
    kwargs = dict(call["kwargs"])
    for name in call["datetimes"]:
        kwargs[name] = moment(kwargs.get(name))
    if "__secrets__" in kwargs:
        from . import lookup  # not for every worker: it needs regular expressions

        lookup.fill_in(kwargs)
    kwargs.setdefault("retry", {"attempts": call["tries"]})
    kwargs.update(
        configuration=call["configuration"],
        context={},
        pipeline_uuid=call["pipeline"],
        block_uuid=call["block"],
        repo_path=call["project"],
        logger=logs.make_logger(call["block"], write),
    )
    if call["item"] is not None:
        kwargs["dynamic_block_index"] = call["item"]
    return kwargs


def run_preprocessers(loaded: Loaded, values: list[Any], kwargs: dict[str, Any]) -> None:
    """Functions under `@preprocesser` run before the block's own, in order."""
    for function in loaded.functions("preprocesser"):
        args, named = calling.arguments(function, values, kwargs, lenient=True)
        calling.call(function, args, named)


def invoke(loaded: Loaded, values: list[Any], kwargs: dict[str, Any]) -> Any:
    """Call the block's function; what it returned, awaited."""
    args, named = prepare(loaded, values, kwargs)
    return calling.call(loaded.function, args, named)


def prepare(loaded: Loaded, values: list[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of the block's function."""
    return calling.arguments(loaded.function, values, kwargs, lenient=loaded.kind == "sensor")


class TestRun:
    """Judges the functions under `@test`: an AssertionError is a failed test, all are run (Mage)."""

    def __init__(self, loaded: Loaded) -> None:
        self.functions = loaded.functions("test")
        self._path = loaded.file.path
        self._failed: list[str] = []
        self._line: int | None = None
        self._name = ""

    def judging(self, function: Any) -> TestRun:
        """Context manager around the call of one test."""
        self._name = getattr(function, "__name__", "test")
        return self

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> bool:
        if not isinstance(error, AssertionError):
            return False
        self._line = self._line or faults.innermost_line(error, self._path)
        self._failed.append("%s: %s" % (self._name, error if str(error) else "assertion failed"))
        return True

    def conclude(self) -> None:
        """Raise TestsFailed if any has failed."""
        if self._failed:
            told = (len(self._failed), len(self.functions), "; ".join(self._failed))
            fault = faults.TestsFailed("%d of %d failed to pass tests: %s" % told)
            fault.line = self._line
            raise fault


def run_tests(loaded: Loaded, results: list[Any], kwargs: dict[str, Any]) -> None:
    """Call every function under `@test` with the outputs."""
    verdict = TestRun(loaded)
    for function in verdict.functions:
        with verdict.judging(function):
            args, named = calling.test_arguments(function, results, kwargs)
            calling.call(function, args, named)
    verdict.conclude()


def moment(text: Any) -> Any:
    """An ISO 8601 text as an aware datetime; anything else as it is."""
    if type(text) is not str:
        return text
    from datetime import datetime, timezone

    # Before 3.11 `fromisoformat` knows neither Z nor fractions of any other length than 3 and 6.
    date, dot, rest = (text[:-1] + "+00:00" if text.endswith("Z") else text).partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    fraction = dot + digits[:6].ljust(6, "0") if dot else ""
    moment = datetime.fromisoformat(date + fraction + rest[len(digits) :])
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=timezone.utc)
