"""The warden: one small process per service that starts, watches and kills the workers.

A program of its own, started by file path: single-threaded, standard library only, few imports (its memory is
paid by every service). It is the subreaper of everything below it, so nothing a block starts can get away: what
a dead worker leaves becomes the warden's own child. The service beats once a second; after `silence_s` without
a word, or when the control socket closes, everything below is killed.

    python -I -S warden.py <fd of the control socket> <silence in s> <node id> [node id to sweep …]

Messages are datagrams of NUL-separated fields. In: `beat` · `spawn id python program folder` with three file
descriptors (link, stdout, stderr) · `kill id grace_ms`. Out: `hello pid swept` · `beat` · `failed id message` ·
`exit id cause status cpu_ms max_rss_kib term_ms kill_ms processes survivors`.
"""

import _signal  # type: ignore[import-not-found]  # these two: the C halves, which import nothing (0.7 MiB)
import _socket
import ctypes
import os
import select
import sys
import time

#: a process that SIGKILL does not end within this time hangs in the kernel and is reported as a survivor
STUBBORN_S = 10.0
_TICK_MS = 5
_SIGKILL, _SIGTERM = 9, 15
#: signals that nobody can handle, that tell of our own faults (ILL, TRAP, ABRT, BUS, FPE, SEGV), or of children (CHLD)
_KEPT = {4, 5, 6, 7, 8, _SIGKILL, 11, 17, 19}
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_MARKER = "_RUNWRIGHT_NODE"

Tree = dict[int, list[int]]
# `open` throughout: pathlib would bring a third of the memory again.
# ruff: noqa: PTH123, PTH208


class Worker:
    """A worker process and, once it is asked for, its killing."""

    def __init__(self, key: bytes, pid: int) -> None:
        self.key = key
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.ended: int | None = None
        self.cause = b"exit"
        self.cpu_s = 0.0
        self.max_rss = 0
        self.asked: float | None = None
        self.deadline: float | None = None
        self.term_ms = self.kill_ms = -1
        #: descendants that got SIGTERM and may use the grace even if the worker itself is gone
        self.graced: set[int] = set()
        self.signalled: set[int] = set()

    def elapsed_ms(self) -> int:
        """Milliseconds since the kill was asked for."""
        return 0 if self.asked is None else int((time.monotonic() - self.asked) * 1000)

    def reap(self) -> None:
        """Take the exit status if the process has ended."""
        pid, status, usage = os.wait4(self.pid, os.WNOHANG)
        if pid:
            self.ended = status
            self.cpu_s, self.max_rss = usage.ru_utime + usage.ru_stime, usage.ru_maxrss
            os.close(self.pidfd)


class Warden:
    """The state of the process; :meth:`run` is its loop."""

    def __init__(self, control: _socket.socket, silence_s: float, node: str) -> None:
        self.control = control
        self.silence_s = silence_s
        self.pid = os.getpid()
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("RUNWRIGHT_")}
        self.environment[_MARKER] = node
        self.workers: dict[bytes, Worker] = {}
        #: processes that SIGKILL does not end, reported already
        self.stuck: set[int] = set()
        self.outbox: list[bytes] = []
        self.heard = time.monotonic()
        self.poll = select.poll()
        self.poll.register(control, select.POLLIN)

    def run(self) -> None:
        """Serve until the control socket closes; then kill everything below."""
        while True:
            busy = self.outbox or any(
                w.ended is not None or w.asked is not None for w in self.workers.values()
            )
            self.poll.poll(_TICK_MS if busy else 500)
            if not self.read_messages():
                kill_everything()
                return
            if self.workers and time.monotonic() - self.heard > self.silence_s:
                self.silence()
            self.reap()
            self.attend()
            self.flush()

    def read_messages(self) -> bool:
        """Handle every message that waits; False if the service is gone."""
        while True:
            try:
                data, ancillary, _flags, _address = self.control.recvmsg(65536, 256, _socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return True
            except ConnectionError:
                return False
            if not data:
                return False
            self.heard = time.monotonic()
            self.handle(data.split(b"\0"), _descriptors(ancillary))

    def handle(self, fields: list[bytes], fds: list[int]) -> None:
        """Do what one message asks."""
        try:
            if fields[0] == b"beat":
                self.outbox.append(b"beat")
            elif fields[0] == b"spawn" and len(fds) == 3:
                self.spawn(fields, fds)
            elif fields[0] == b"kill":
                self.ask_kill(fields[1], int(fields[2]) / 1000)
        finally:
            for fd in fds:
                os.close(fd)

    def spawn(self, fields: list[bytes], fds: list[int]) -> None:
        """Start a worker: own session, dies with the warden, reaper of what it starts."""
        key, python, program, folder = fields[1:]
        readable, writable = os.pipe()
        pid = os.fork()
        if pid == 0:
            self.become_worker(python, program, folder, fds, writable)
        os.close(writable)
        with open(readable, "rb") as pipe:
            failure = pipe.read()
        if failure:
            os.waitpid(pid, 0)
            self.outbox.append(b"\0".join((b"failed", key, failure)))
            return
        worker = self.workers[key] = Worker(key, pid)
        self.poll.register(worker.pidfd, select.POLLIN)

    def become_worker(
        self, python: bytes, program: bytes, folder: bytes, fds: list[int], failure: int
    ) -> None:
        """In the forked child: exec the worker; writes why if that fails. Does not return."""
        try:
            os.setsid()
            self.libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
            if os.getppid() != self.pid:
                os._exit(127)  # the warden died before the line above
            self.libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            self.first_for_oom()
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(fds[1], 1)
            os.dup2(fds[2], 2)
            os.set_inheritable(fds[0], True)
            os.chdir(folder)
            os.execvpe(python, [python, program, b"%d" % fds[0]], self.environment)
        except OSError as error:
            os.write(failure, (error.strerror or str(error)).encode())
        finally:
            os._exit(127)

    @staticmethod
    def first_for_oom() -> None:
        """When memory runs out, a worker goes before the service."""
        try:
            with open("/proc/self/oom_score_adj", "w") as stream:
                stream.write("500")
        except OSError:
            return  # not every container lets us

    def ask_kill(self, key: bytes, grace_s: float) -> None:
        """Begin to kill a worker and all it started: SIGTERM now, SIGKILL after the grace (0: at once)."""
        worker = self.workers.get(key)
        if worker is None:
            return
        self.reap()
        if worker.asked is None:
            worker.asked = time.monotonic()
        deadline = time.monotonic() + grace_s
        if worker.deadline is None or deadline < worker.deadline:
            worker.deadline = deadline
        if worker.ended is None and worker.cause == b"exit":
            worker.cause = b"kill"
        if grace_s > 0 and worker.term_ms < 0:
            worker.graced = set(descendants(read_tree(), worker.pid))
            worker.term_ms = worker.elapsed_ms()
            for pid in (worker.pid, *worker.graced):
                send_signal(pid, _SIGTERM)
            worker.signalled |= {worker.pid, *worker.graced}

    def silence(self) -> None:
        """The service has not been heard: SIGKILL everything, report it, wait for the next word."""
        for worker in self.workers.values():
            if worker.cause != b"silence":
                worker.cause, worker.asked, worker.deadline = b"silence", time.monotonic(), 0.0

    def reap(self) -> None:
        """Collect the workers that have ended."""
        for worker in self.workers.values():
            if worker.ended is None:
                worker.reap()
                if worker.ended is not None:
                    self.poll.unregister(worker.pidfd)

    def attend(self) -> None:
        """Kill what must go, and report each ended worker of whose family nothing is left."""
        ended = [w for w in self.workers.values() if w.ended is not None]
        expired = [
            w for w in self.workers.values() if w.deadline is not None and w.deadline <= time.monotonic()
        ]
        if not ended and not expired:
            return
        tree = read_tree()
        for worker in expired:
            worker.graced.clear()
            if worker.ended is None:
                self.kill(worker, [worker.pid, *descendants(tree, worker.pid)])
        orphans = self.orphans(tree)
        for orphan in orphans:
            owner = ended[0] if ended else expired[0]
            self.kill(owner, [orphan, *descendants(tree, orphan)])
        below = set(descendants(tree, self.pid))
        for worker in ended:
            if not orphans and not worker.graced & below:
                self.report(worker, survivors=0)
        for worker in list(self.workers.values()):
            if worker.kill_ms >= 0 and worker.elapsed_ms() > worker.kill_ms + STUBBORN_S * 1000:
                self.give_up(worker, orphans)

    def orphans(self, tree: Tree) -> list[int]:
        """Direct children that are no workers: what dead workers left, less those that still have grace."""
        workers = {w.pid for w in self.workers.values()}
        spared = self.stuck.union(*(w.graced for w in self.workers.values()))
        children = [pid for pid in tree.get(self.pid, ()) if pid not in workers]
        for pid in children:
            reap_zombie(pid)
        return [pid for pid in children if pid not in spared]

    def give_up(self, worker: Worker, orphans: list[int]) -> None:
        """Report a worker of which something hangs in the kernel: nobody may wait for it for ever."""
        alive = [*orphans, *([worker.pid] if worker.ended is None else [])]
        self.stuck.update(alive)
        worker.ended = _SIGKILL if worker.ended is None else worker.ended
        self.report(worker, survivors=len(alive))

    @staticmethod
    def kill(worker: Worker, pids: list[int]) -> None:
        """SIGKILL, counted on the worker's account."""
        if worker.asked is None:
            worker.asked = time.monotonic()
        if worker.kill_ms < 0:
            worker.kill_ms = worker.elapsed_ms()
        for pid in pids:
            send_signal(pid, _SIGKILL)
        worker.signalled.update(pids)

    def report(self, worker: Worker, survivors: int) -> None:
        """Tell the service that a worker and everything it started are gone."""
        del self.workers[worker.key]
        numbers = (
            worker.ended or 0,
            int(worker.cpu_s * 1000),
            worker.max_rss,
            worker.term_ms,
            worker.kill_ms,
            len(worker.signalled),
            survivors,
        )
        self.outbox.append(b"\0".join((b"exit", worker.key, worker.cause, *(b"%d" % n for n in numbers))))

    def flush(self) -> None:
        """Send what waits; what the socket does not take waits for the next round."""
        while self.outbox:
            try:
                self.control.send(self.outbox[0])
            except BlockingIOError:
                return
            except OSError:
                return  # closed: the next read says so
            del self.outbox[0]


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    """The file descriptors that came with a message."""
    fds: list[int] = []
    for level, kind, data in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            fds += memoryview(data).cast("i").tolist()
    return fds


def read_tree() -> Tree:
    """Parent pid -> pids, of every process that can be seen."""
    tree: Tree = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as stream:
                    # the command stands in parentheses and may contain anything
                    parent = int(stream.read().rpartition(b")")[2].split()[1])
            except (OSError, IndexError):
                continue  # it has just ended
            tree.setdefault(parent, []).append(int(name))
    return tree


def descendants(tree: Tree, pid: int) -> list[int]:
    """All pids below `pid`, parents first."""
    found: list[int] = []
    level = [pid]
    while level:
        level = [child for parent in level for child in tree.get(parent, ())]
        found += level
    return found


def send_signal(pid: int, number: int) -> None:
    """Signal a process that may be gone already."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def reap_zombie(pid: int) -> None:
    """Take the status of a child that is no worker, if it has ended."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


def kill_everything() -> None:
    """SIGKILL every descendant until there is none."""
    while True:
        for pid in descendants(read_tree(), os.getpid()):
            send_signal(pid, _SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.002)


def sweep(nodes: list[str]) -> int:
    """Kill the processes that dead services of this host left behind, known by the mark in their environment."""
    marks = [f"{_MARKER}={node}".encode() for node in nodes]
    killed: set[int] = set()
    until = time.monotonic() + STUBBORN_S
    while marks and time.monotonic() < until:
        found = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _is_marked(pid, marks)]
        if not found:
            break
        for pid in found:
            send_signal(pid, _SIGKILL)
        killed.update(found)
        time.sleep(0.002)
    return len(killed)


def _is_marked(pid: int, marks: list[bytes]) -> bool:
    if pid == os.getpid():
        return False
    try:
        with open(f"/proc/{pid}/environ", "rb") as stream:
            entries = stream.read().split(b"\0")
    except OSError:
        return False
    return any(mark in entries for mark in marks)


def main() -> None:
    """Be the warden of the service that started this process."""
    for number in _signal.valid_signals() - _KEPT:
        # Stopping is the service's decision. A handler, since "ignore" would be inherited by the workers.
        _signal.signal(number, lambda *_: None)
    control = _socket.socket(fileno=int(sys.argv[1]))
    control.setblocking(False)
    os.set_inheritable(control.fileno(), False)
    warden = Warden(control, float(sys.argv[2]), sys.argv[3])
    swept = sweep(sys.argv[4:])
    warden.outbox.append(b"hello\0%d\0%d" % (os.getpid(), swept))
    warden.flush()
    warden.run()


if __name__ == "__main__":
    main()
