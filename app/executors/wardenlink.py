"""The service's side of the warden: starts it, beats to it, asks it to spawn and kill, hears what has ended."""

import asyncio
import os
import resource
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import structlog

log = structlog.get_logger(__name__)

_PROGRAM = Path(__file__).with_name("warden.py")
BEAT_S = 1.0
#: beats without an answer after which the warden itself is taken for hung
_DEAF_AFTER = 10
_HELLO_TIMEOUT_S = 20.0
_RESTART_DELAY_S = 1.0

Cause = Literal["exit", "kill", "silence", "warden", "start", "away"]


@dataclass(frozen=True, slots=True)
class Gone:
    """How a worker process ended, with everything it had started. Times in ms since the kill was asked for."""

    cause: Cause
    status: int | None = None
    error: str = ""
    cpu_ms: int = 0
    max_rss_kib: int = 0
    term_ms: int = -1
    kill_ms: int = -1
    processes: int = 0
    survivors: int = 0

    @property
    def how(self) -> str:
        """For people: "exit code 1", "signal SIGKILL"."""
        facts = self.evidence()
        if "signal" in facts:
            return f"signal {facts['signal']}"
        return f"exit code {facts['exit_code']}" if "exit_code" in facts else "unknown cause"

    def evidence(self) -> dict[str, Any]:
        """What is known, for the attempt's record."""
        facts: dict[str, Any] = {"cause": self.cause}
        if self.status is not None:
            code = os.waitstatus_to_exitcode(self.status)
            facts |= {"exit_code": code} if code >= 0 else {"signal": _signal_name(-code)}
            facts |= {"cpu_s": self.cpu_ms / 1000, "max_rss_kib": self.max_rss_kib}
        if self.term_ms >= 0:
            facts["term_at_ms"] = self.term_ms
        if self.kill_ms >= 0:
            facts["kill_at_ms"] = self.kill_ms
        if self.processes:
            facts["processes"] = self.processes
        return facts | {"survivors": self.survivors}


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"


class WardenLink:
    """One warden at a time; a dead one is replaced, after its successor has swept what it left."""

    def __init__(
        self, node_id: str, sweep: Sequence[str] = (), *, silence_s: float = 5.0, memory: int | None = None
    ) -> None:
        """`memory`: bytes of address space that each process below the warden may have."""
        self._node_id, self._silence_s, self._memory = node_id, silence_s, memory
        self._sweep = list(sweep)
        self._loop = asyncio.get_running_loop()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._hello: asyncio.Future[None] = self._loop.create_future()
        self._unsent: deque[tuple[bytes, Sequence[int]]] = deque()
        self._unanswered = 0
        self._last_key = 0
        self._waiting: dict[int, Callable[[Gone], None]] = {}
        self._bereaved: list[Callable[[Gone], None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._stopping = False

    @property
    def pid(self) -> int | None:
        """Process id of the present warden."""
        return self._process.pid if self._process is not None else None

    async def start(self) -> None:
        """Start the warden; when this returns, what dead nodes left behind has been killed."""
        self._launch()
        self._timer = self._loop.call_later(BEAT_S, self._beat)
        async with asyncio.timeout(_HELLO_TIMEOUT_S):
            await asyncio.shield(self._hello)

    async def stop(self) -> None:
        """End the warden; it kills whatever is left below it first."""
        self._stopping = True
        if self._timer is not None:
            self._timer.cancel()
        self._close()
        if self._process is not None:
            await asyncio.to_thread(self._process.wait)
        for on_gone in (*self._waiting.values(), *self._bereaved):
            on_gone(Gone("kill"))
        self._waiting.clear()
        self._bereaved.clear()

    def cut(self) -> None:
        """Let the warden see the end of its service: it kills everything at once. From any thread, also twice."""
        self._stopping = True
        if (control := self._control) is not None:
            with suppress(OSError):  # the loop has closed it
                control.shutdown(socket.SHUT_RDWR)

    def spawn(
        self, python: str, program: Path, folder: Path, fds: Sequence[int], on_gone: Callable[[Gone], None]
    ) -> int:
        """Ask for a worker that gets `fds` as link, stdout and stderr; its key. The caller closes its copies."""
        self._last_key += 1
        key = self._last_key
        if self._control is None:
            self._loop.call_soon(on_gone, Gone("away"))
            return key
        self._waiting[key] = on_gone
        self._send((b"spawn", b"%d" % key, python.encode(), bytes(program), bytes(folder)), fds)
        return key

    def has(self, key: int) -> bool:
        """Whether the present warden has that worker."""
        return key in self._waiting

    def kill(self, key: int, grace_s: float) -> None:
        """Ask to end a worker and everything it started; its `on_gone` tells when that is done."""
        if key in self._waiting:
            self._send((b"kill", b"%d" % key, b"%d" % (grace_s * 1000)))

    def _launch(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        fd = str(theirs.fileno())
        command = [
            sys.executable,
            "-I",
            "-S",
            str(_PROGRAM),
            fd,
            str(self._silence_s),
            self._node_id,
            *self._sweep,
        ]
        with theirs:
            self._process = subprocess.Popen(
                command,
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        if self._memory is not None:
            # On the warden, before it starts anything: whatever is below it inherits that.
            resource.prlimit(self._process.pid, resource.RLIMIT_AS, (self._memory, self._memory))
        ours.setblocking(False)
        self._control = ours
        self._unanswered = 0
        self._loop.add_reader(ours, self._readable)
        if self._stopping:  # cut while this one was being started
            self.cut()

    def _beat(self) -> None:
        # On the event loop on purpose: a loop that hangs must stop the beat.
        self._timer = self._loop.call_later(BEAT_S, self._beat)
        if self._control is None or self._unsent:
            return
        self._send((b"beat",))
        self._unanswered += 1
        if self._unanswered > _DEAF_AFTER and self._process is not None:
            log.error("the warden does not answer and is replaced", pid=self._process.pid)
            self._process.kill()

    def _send(self, fields: Sequence[bytes], fds: Sequence[int] = ()) -> None:
        if self._control is None:
            return
        data = b"\0".join(fields)
        if self._unsent or not self._try_send(data, fds):
            self._unsent.append((data, [os.dup(fd) for fd in fds]))
            self._loop.add_writer(self._control, self._writable)

    def _try_send(self, data: bytes, fds: Sequence[int]) -> bool:
        assert self._control is not None
        try:
            socket.send_fds(self._control, [data], list(fds))
        except BlockingIOError:
            return False
        except OSError:
            return True  # it is gone: reading says so
        return True

    def _writable(self) -> None:
        while self._unsent and self._try_send(*self._unsent[0]):
            for fd in self._unsent.popleft()[1]:
                os.close(fd)
        if not self._unsent and self._control is not None:
            self._loop.remove_writer(self._control)

    def _readable(self) -> None:
        while self._control is not None:
            try:
                data = self._control.recv(65536)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._lost()
                return
            self._unanswered = 0
            self._handle(data.split(b"\0"))

    def _handle(self, fields: list[bytes]) -> None:
        if fields[0] == b"hello":
            self._greeted(swept=int(fields[2]))
        elif fields[0] == b"failed":
            self._gone(int(fields[1]), Gone("start", error=fields[2].decode("utf-8", "replace")))
        elif fields[0] == b"exit":
            cause: Cause = {b"kill": "kill", b"silence": "silence"}.get(fields[2], "exit")  # type: ignore[assignment]
            self._gone(int(fields[1]), Gone(cause, int(fields[3]), "", *map(int, fields[4:])))

    def _gone(self, key: int, gone: Gone) -> None:
        on_gone = self._waiting.pop(key, None)
        if on_gone is not None:
            on_gone(gone)

    def _greeted(self, swept: int) -> None:
        if swept:
            log.warning("processes of a dead service or warden were killed", processes=swept)
        if not self._hello.done():
            self._hello.set_result(None)
        self._tell_bereaved()

    def _tell_bereaved(self) -> None:
        """Only now: the successor has swept, so nothing of the dead warden's workers is alive."""
        bereaved, self._bereaved = self._bereaved, []
        for on_gone in bereaved:
            on_gone(Gone("warden"))

    def _lost(self) -> None:
        """The warden is dead, and its workers die with it (PR_SET_PDEATHSIG): start another one."""
        self._close()
        if self._stopping or self._process is None:
            return
        self._process.kill()
        status = self._process.wait()
        log.error("the warden has died and is replaced", status=status)
        self._bereaved += self._waiting.values()
        self._waiting.clear()
        self._sweep = [self._node_id]
        if self._hello.done():
            self._hello = self._loop.create_future()
            self._launch()
        else:
            # It did not even come up: tell those who wait, and do not try in a tight loop.
            self._tell_bereaved()
            self._loop.call_later(_RESTART_DELAY_S, self._relaunch)

    def _relaunch(self) -> None:
        if not self._stopping:
            self._launch()

    def _close(self) -> None:
        control, self._control = self._control, None
        if control is not None:
            self._loop.remove_reader(control)
            self._loop.remove_writer(control)
            control.close()
        for _data, fds in self._unsent:
            for fd in fds:
                os.close(fd)
        self._unsent.clear()
