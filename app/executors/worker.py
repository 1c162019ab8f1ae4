"""One worker process as the service sees it: started, given a block, listened to, killed."""

import asyncio
import os
import random
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from json import dumps, loads
from pathlib import Path
from typing import Any

import orjson

from app import clock
from app.executors.base import Ask, BlockCall, BlockError, BlockResult, LogLine, OnAsk
from app.executors.channel import Channel
from app.executors.child import frames
from app.executors.output import Output, Sink
from app.executors.wardenlink import Gone, WardenLink
from app.models.states import Outcome

_PROGRAM = Path(__file__).parent / "child" / "boot.py"
_START_TIMEOUT_S = 30.0
#: how long a retired worker may take for its exit handlers
_RETIRE_S = 5.0
_START_LINES = 20


@dataclass(frozen=True, slots=True)
class Kill:
    """Why an attempt is being stopped, and what `run` is to return for it."""

    outcome: Outcome
    reason: str
    asked_at: str = field(default_factory=lambda: clock.now().isoformat())

    def evidence(self, gone: Gone | None) -> dict[str, Any]:
        """The proof, for the attempt's record; without `gone` nothing had been started."""
        facts: dict[str, Any] = {"reason": self.reason, "asked_at": self.asked_at}
        return facts | (gone.evidence() if gone is not None else {"started": False, "survivors": 0})


@dataclass(slots=True)
class Attempt:
    """What is in flight.

    `done` is for the one who runs it, and gives None if the worker declined before any user code ran. Who runs it
    may be cancelled: the attempt goes on until it ends or is killed, which `over` tells.
    """

    call: BlockCall
    done: asyncio.Future[BlockResult | None]
    on_ask: OnAsk | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)
    result: Mapping[str, Any] | None = None
    kill: Kill | None = None
    broken: str = ""


class Worker:
    """Runs one attempt at a time. `usable` turns false for good when it must not get another one."""

    def __init__(
        self,
        warden: WardenLink,
        python: str,
        folder: Path,
        on_ready: Callable[["Worker"], None],
        on_gone: Callable[["Worker"], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._warden = warden
        self.python = python
        self._on_ready, self._on_gone = on_ready, on_gone
        #: "" once it is ready, else why it cannot be
        self.ready: asyncio.Future[str] = self._loop.create_future()
        self.usable = True
        self.uses = 0
        self.idle_since = 0.0
        self._gone: Gone | None = None
        self._attempt: Attempt | None = None
        self._parser = frames.Parser()
        self._start_lines: list[str] = []
        self._open(folder)
        self._timer = self._loop.call_later(_START_TIMEOUT_S, self._end_now)

    def _open(self, folder: Path) -> None:
        ours, theirs = socket.socketpair()
        out, out_there = os.pipe()
        err, err_there = os.pipe()
        self._channel = Channel(self._loop, ours, self._on_data, self._on_closed)
        self._output = Output(self._loop, out, err)
        self._output.begin(self._on_start_line)
        fds = (theirs.fileno(), out_there, err_there)
        self._key = self._warden.spawn(self.python, _PROGRAM, folder, fds, self._ended)
        theirs.close()
        os.close(out_there)
        os.close(err_there)

    @property
    def innocent(self) -> bool:
        """Whether it ended for no fault of its own, or has worked before: another one will do better or as well."""
        return self.uses > 0 or (self._gone is not None and self._gone.cause in _LOST)

    @property
    def is_there(self) -> bool:
        """Whether it can take an attempt: not if its warden has died, also while that is not yet told of it."""
        return self.usable and self._warden.has(self._key)

    @property
    def is_lost(self) -> bool:
        """Whether it ended with its warden, or with the service's silence, or found no warden: not by itself."""
        return self._gone is not None and (self._gone.cause == "away" or self._gone.cause in _LOST)

    @property
    def busy(self) -> bool:
        """Whether an attempt is in flight."""
        return self._attempt is not None

    async def run(self, call: BlockCall, sink: Sink, on_ask: OnAsk | None = None) -> BlockResult | None:
        """Run one attempt; None if this worker declined it before user code ran (its imports are stale)."""
        token = random.getrandbits(32)
        try:
            frame = frames.pack(token, _header(call), body_of(call))
        except frames.BrokenFrame:
            return BlockResult(Outcome.FAILED, error=BlockError("InputTooLarge", _TOO_LARGE, call.block.file))
        attempt = self._attempt = Attempt(call, self._loop.create_future(), on_ask)
        self.uses += 1
        self._parser.token = token
        self._output.begin(sink)
        self._channel.send(frame)
        return await attempt.done

    async def kill(self, kill: Kill, grace_s: float) -> None:
        """Stop the attempt in flight, wait until nothing of it is alive."""
        attempt = self._attempt
        if attempt is None:
            return
        attempt.kill = attempt.kill or kill
        self.usable = False
        self._warden.kill(self._key, grace_s)
        await attempt.over.wait()

    def abandon(self) -> None:
        """End the process with its attempt; nobody waits for the result."""
        if self._attempt is not None and self._attempt.kill is None:
            self._attempt.kill = Kill(Outcome.CANCELLED, "its slot was released")
        self._end_now()

    def retire(self) -> None:
        """Let it end by itself: its exit handlers run; killed if that takes long."""
        self.usable = False
        self._channel.close()
        self._timer.cancel()
        self._timer = self._loop.call_later(_RETIRE_S, self._end_now)

    def _end_now(self) -> None:
        self.usable = False
        self._warden.kill(self._key, 0)

    def _on_start_line(self, line: LogLine) -> None:
        self._start_lines = [*self._start_lines[1 - _START_LINES :], line.text]

    def _on_data(self, data: bytes) -> None:
        try:
            for header, body in self._parser.feed(data):
                self._on_frame(loads(header), body)
        except (frames.BrokenFrame, ValueError) as error:
            self._break(f"the block wrote into the worker's link ({error})")

    def _on_closed(self) -> None:
        self._break("the worker's link was closed")

    def _break(self, why: str) -> None:
        """The link cannot be trusted any more: end the process; how it ended tells the rest."""
        attempt = self._attempt
        if attempt is not None and not attempt.broken:
            attempt.broken = why
        self._channel.close()
        if attempt is None or attempt.kill is None:  # one that is being killed keeps its grace
            self._end_now()

    def _on_frame(self, header: Mapping[str, Any], body: bytes) -> None:
        attempt = self._attempt
        if header["op"] == "ready" and not self.ready.done():
            self._timer.cancel()
            self._output.end()
            self.ready.set_result("")
            self._on_ready(self)
        elif attempt is None or attempt.result is not None or not _belongs(header, attempt.call):
            raise frames.BrokenFrame("unexpected frame")
        elif header["op"] == "stale":
            self.retire()
            self._settle(None)
        elif header["op"] == "ask" and attempt.kill is None:
            # Not by orjson: NaN and lone surrogates break no link, they are refused with a reason.
            self._on_ask(attempt, loads(body))
        elif header["op"] == "result" and attempt.kill is None:
            attempt.result = orjson.loads(body)
            self._on_result(attempt.result)

    def _on_ask(self, attempt: Attempt, question: Mapping[str, Any]) -> None:
        """Hand a question on; its answer goes back only while the same attempt runs."""

        def answer(reply: Mapping[str, Any]) -> None:
            if self._attempt is attempt and attempt.kill is None:
                self._channel.send(_reply(self._parser.token, _header(attempt.call), reply))

        if attempt.on_ask is None:
            answer({"error": {"type": "NotSupported", "message": f"nobody here answers {question['name']}"}})
        else:
            attempt.on_ask(Ask(question["name"], question["payload"], answer))

    def _on_result(self, result: Mapping[str, Any]) -> None:
        if result["leftovers"]:
            # The block has left processes behind: nothing of it may run on beside the next block.
            self._end_now()
            return
        if result["retire"]:
            self.retire()
        self._settle(to_result(result))

    def _ended(self, gone: Gone) -> None:
        """The process and everything it had started are gone."""
        self._gone = gone
        self.usable = False
        self._timer.cancel()
        self._channel.drain()
        self._output.drain()
        self._channel.close()
        if self._attempt is not None:
            self._settle(self._verdict(self._attempt, gone))
        if not self.ready.done():
            self._output.end()
            self.ready.set_result(self._why_not_ready(gone))
        self._output.close()
        self._on_gone(self)

    def _verdict(self, attempt: Attempt, gone: Gone) -> BlockResult:
        if attempt.kill is not None:
            return BlockResult(attempt.kill.outcome, evidence=attempt.kill.evidence(gone))
        if attempt.result is not None:
            return self._with_leftovers(attempt.result, gone)
        lost = gone.cause in ("silence", "warden")
        why = _LOST[gone.cause] if lost else f"the worker process ended without a result ({gone.how})"
        if attempt.broken and not lost:
            why += f": {attempt.broken}"
        error = BlockError("WorkerLost" if lost else "WorkerCrashed", why, file=attempt.call.block.file)
        evidence = gone.evidence() | ({"broken": attempt.broken} if attempt.broken else {})
        return BlockResult(Outcome.LOST if lost else Outcome.CRASHED, error=error, evidence=evidence)

    def _with_leftovers(self, result: Mapping[str, Any], gone: Gone) -> BlockResult:
        left = max(gone.processes - 1, 0)
        self._output.note(f"the block left {left} process(es) running; they have been ended")
        return to_result(result, {"leftovers": left, "survivors": gone.survivors})

    def _settle(self, result: BlockResult | None) -> None:
        """Hand on the last lines, then the result."""
        attempt, self._attempt = self._attempt, None
        self._output.end()
        if attempt is not None:
            attempt.over.set()
            if not attempt.done.done():
                attempt.done.set_result(result)

    def _why_not_ready(self, gone: Gone) -> str:
        if self.is_lost:
            return _LOST.get(gone.cause, "there was no warden to start a worker")
        if gone.error:
            return f"interpreter '{self.python}' cannot be started: {gone.error}"
        said = "".join(f"; it said: {line}" for line in self._start_lines[-1:])
        return f"interpreter '{self.python}' ended before it was ready ({gone.how}){said}"


_LOST = {
    "silence": "the service did not answer its warden in time, so its workers were ended",
    "warden": "the warden process died, and its workers with it",
}


_LIMIT_MIB = frames.LIMIT // 2**20
_TOO_LARGE = (
    f"what the upstream blocks left and the variables take more than {_LIMIT_MIB} MiB, files not counted:"
    " return less, or larger values in one piece, which are kept in files"
)


def _reply(token: int, header: bytes, reply: Mapping[str, Any]) -> bytes:
    """The frame of an answer; that of an error where the answer does not fit into one."""
    try:
        return frames.pack(token, header, _json(reply))
    except frames.BrokenFrame:
        told = f"the answer takes more than {_LIMIT_MIB} MiB: ask for less"
        return frames.pack(token, header, _json({"error": {"type": "AnswerTooLarge", "message": told}}))


def _header(call: BlockCall) -> bytes:
    return b'{"attempt":%d,"epoch":%d}' % (call.attempt, call.epoch)


def _belongs(header: Mapping[str, Any], call: BlockCall) -> bool:
    return (header.get("attempt"), header.get("epoch")) == (call.attempt, call.epoch)


def body_of(call: BlockCall) -> bytes:
    """The message of a call, as the worker reads it."""
    block, hook = call.block, call.hook
    value = {
        "project": str(call.project),
        "pipeline": call.pipeline_uuid,
        "block": hook.uuid if hook else block.uuid,
        "type": hook.kind if hook else str(block.type),
        "file": hook.file if hook else block.file,
        "hook": {"parent": block.uuid, "status": hook.status, "error": hook.error, "run": hook.run}
        if hook
        else None,
        "tries": call.tries,
        "dynamic": block.dynamic.parent and hook is None,
        "item": call.item,
        "configuration": dict(block.configuration),
        "attempt": call.attempt,
        "artifact_dir": call.artifact_dir,
        "artifacts": str(call.artifacts),
        "inputs": [(uuid, [dict(ref) for ref in refs]) for uuid, refs in call.inputs],
        "kwargs": dict(call.kwargs),
        "datetimes": list(call.datetimes),
    }
    return _json(value)


def _json(value: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:
        # Integers beyond 64 bits and lone surrogates, which orjson refuses.
        return dumps(value, default=str).encode()


def to_result(result: Mapping[str, Any], evidence: Mapping[str, Any] | None = None) -> BlockResult:
    """The result that a worker sent."""
    error = result.get("error")
    return BlockResult(
        Outcome(result["outcome"]),
        outputs=tuple(result.get("outputs", ())),
        error=BlockError(**error) if error is not None else None,
        evidence=evidence,
        metrics=result["metrics"],
        code_hash=result["code_hash"],
        value_false=result.get("value_false", False),
    )
