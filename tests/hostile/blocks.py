"""Blocks that do what no block should, and what is to become of each: as files of a project."""

from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

from tests.soak.project import write

#: seconds that blocks get which do not end, and all others
SHORT_S, LONG_S = 2, 60


@dataclass(frozen=True)
class Kind:
    """`code`: the file. `ends`: (status of the block, outcome, kind of error) that are right, None for no error."""

    code: str
    ends: tuple[tuple[str, str, str | None], ...]
    #: whether the time limit has to end it
    times_out: bool = False
    #: what it does to others: a dead warden takes the attempts of all blocks along, which run again
    apart: bool = False
    #: what its log must tell
    told: str = ""
    #: set in the pipeline
    isolation: str = ""


def custom(body: str, imports: str = "import os, signal, sys, time") -> str:
    """A block with that body."""
    lines = "\n".join(f"    {line}" for line in dedent(body).strip().splitlines())
    return f"{imports}\n\n@custom\ndef block(*args, **kwargs):\n{lines}\n"


CRASHED = (("failed", "crashed", "WorkerCrashed"),)
STOPPED = (("failed", "timeout", None),)
DONE = (("completed", "completed", None),)


def failed(kind: str) -> tuple[tuple[str, str, str | None], ...]:
    """It has failed as a block fails, with that error."""
    return (("failed", "failed", kind),)


KINDS: dict[str, Kind] = {
    # Ends of the process
    "segfault": Kind(custom("import ctypes; ctypes.string_at(0)"), CRASHED),
    "exit_0": Kind(custom("os._exit(0)"), CRASHED),
    "exit_3": Kind(custom("os._exit(3)"), CRASHED),
    "abort": Kind(custom("os.abort()"), CRASHED),
    "kills_itself": Kind(custom("os.kill(os.getpid(), signal.SIGKILL)"), CRASHED),
    "kills_its_session": Kind(custom("os.killpg(0, signal.SIGKILL)"), CRASHED),
    "terminates_itself": Kind(
        custom("os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)"),
        (*CRASHED, ("failed", "failed", "Terminated")),
    ),
    "sys_exit": Kind(custom("sys.exit(3)"), failed("SystemExit")),
    "sys_exit_0": Kind(custom("sys.exit(0)"), failed("SystemExit")),
    "interrupts": Kind(custom("raise KeyboardInterrupt"), failed("KeyboardInterrupt")),
    "recursion": Kind(custom("def f(n): return f(n + 1)\nf(0)"), failed("RecursionError")),
    "recursion_in_c": Kind(
        custom("sys.setrecursionlimit(10**9)\ndef f(n): return f(n + 1)\nf(0)"),
        (*CRASHED, *failed("RecursionError"), *failed("MemoryError"), *STOPPED),
        times_out=True,
    ),
    # Those that do not end
    "spins": Kind(custom("while True: pass"), STOPPED, times_out=True),
    "ignores_sigterm": Kind(
        custom("signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: time.sleep(1)"), STOPPED, times_out=True
    ),
    "blocks_signals": Kind(
        custom("signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 64))\nwhile True: time.sleep(1)"),
        STOPPED,
        times_out=True,
    ),
    "catches_everything": Kind(
        custom("while True:\n    try: time.sleep(60)\n    except BaseException: pass"), STOPPED, times_out=True
    ),
    "stops_itself": Kind(custom("os.kill(os.getpid(), signal.SIGSTOP); time.sleep(60)"), STOPPED, times_out=True),
    "import_hangs": Kind(
        "import time\nwhile True:\n    time.sleep(1)\n\n@custom\ndef block(*args, **kwargs): return 1\n",
        STOPPED,
        times_out=True,
    ),
    "async_blocks": Kind(
        "import time\n\n@custom\nasync def block(*args, **kwargs):\n    time.sleep(60)\n", STOPPED, times_out=True
    ),
    "async_blocks_inline": Kind(
        "import time\n\n@custom\nasync def block(*args, **kwargs):\n    time.sleep(60)\n",
        failed("app.executors.watchdog.LoopHeld"),
        isolation="inline",
    ),
    "regex_of_evil": Kind(
        custom("import re; re.match(r'(a+)+$', 'a' * 64 + 'b')"), STOPPED, times_out=True
    ),
    # Processes
    "double_fork": Kind(
        custom(
            """
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    signal.signal(signal.SIGTERM, signal.SIG_IGN)
                    os.closerange(0, 64)
                    while True: time.sleep(1)
                os._exit(0)
            os.wait()
            return 1
            """
        ),
        DONE,
        told="process(es) running; they have been ended",
    ),
    "many_children": Kind(
        custom(
            """
            for _ in range(300):
                if os.fork() == 0:
                    signal.signal(signal.SIGTERM, signal.SIG_IGN)
                    while True: time.sleep(60)
            time.sleep(60)
            """
        ),
        STOPPED,
        times_out=True,
    ),
    "many_threads": Kind(
        custom(
            """
            import threading
            for _ in range(300):
                threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
            return 1
            """
        ),
        (*DONE, *failed("RuntimeError")),  # by the memory that each may have
    ),
    "many_files": Kind(custom("keep = [open('/dev/null') for _ in range(10**7)]"), failed("OSError")),
    "signals_its_parent": Kind(
        custom("for number in (1, 2, 15, 10, 12): os.kill(os.getppid(), number)\nreturn 1"), DONE
    ),
    "kills_the_warden": Kind(
        custom("os.kill(os.getppid(), signal.SIGKILL); time.sleep(60)"),
        (("failed", "lost", "WorkerLost"), *DONE),
        apart=True,
    ),
    # Memory
    "eats_memory": Kind(custom("x = []\nwhile True: x.append(bytearray(2**26))"), failed("MemoryError")),
    # Output
    "prints_100_mb": Kind(
        custom("line = 'x' * 1023 + '\\n'\nfor _ in range(100): sys.stdout.write(line * 1024)\nreturn 1"),
        DONE,
        told="bytes of output were dropped",
    ),
    "prints_one_line_of_100_mb": Kind(
        custom("for _ in range(100): os.write(1, b'y' * 2**20) and None\nos.write(1, b'\\n')\nreturn 1"),
        DONE,
        told="more bytes of this line were dropped",
    ),
    "prints_binary": Kind(
        custom("for _ in range(64): os.write(1, os.urandom(2**16))\nos.write(2, b'\\x1b[2J\\x1b]0;owned\\x07\\0\\n')"),
        DONE,
    ),
    "prints_empty_lines": Kind(
        custom("for _ in range(100): os.write(1, b'\\n' * 2**16)\nreturn 1"), DONE, told="bytes of output were dropped"
    ),
    # Results
    "returns_200_mb": Kind(custom("return 'x' * (200 * 2**20)"), DONE),
    "returns_nul_and_surrogates": Kind(
        custom("return {'nul': 'a\\0b', 'lone': '\\ud800', 'nan': float('nan'), 'big': 2**200, 'set': {1}}"), DONE
    ),
    "returns_itself": Kind(custom("x = []\nx.append(x)\nreturn {'x': x}"), DONE),
    "returns_a_lock": Kind(custom("import threading\nreturn threading.Lock()"), failed("OutputNotStorable")),
    "raises_nul": Kind(
        custom("raise ValueError('\\0 \\ud800 ' + 'x' * 10**6)"), failed("ValueError")
    ),
    "error_without_words": Kind(
        custom("class E(Exception):\n    def __str__(self): raise RuntimeError\nraise E()"), failed("block.<locals>.E")
    ),
    # The link
    "closes_its_files": Kind(custom("os.closerange(0, 4096)\ntime.sleep(60)"), CRASHED),
    "writes_into_the_link": Kind(
        custom("for fd in range(3, 64):\n    try: os.write(fd, b'RWf1' + b'{}' * 4096)\n    except OSError: pass"),
        CRASHED,
    ),
    "forges_a_result": Kind(
        custom(
            """
            import struct, zlib
            header = b'{"op":"result","attempt":1,"epoch":1}'
            body = b'{"outcome":"completed","outputs":[],"metrics":{},"code_hash":"x","retire":"","leftovers":false}'
            for fd in range(3, 64):
                for token in range(8):
                    frame = struct.pack(
                        ">4sIIII", b"RWf1", token, len(header + body), len(header), zlib.crc32(header + body)
                    )
                    try: os.write(fd, frame + header + body)
                    except OSError: break
            time.sleep(60)
            """
        ),
        CRASHED,
    ),
    "replaces_its_output": Kind(
        custom("sys.stdout.close()\nos.close(1)\nos.dup2(os.open('/dev/null', os.O_WRONLY), 1)\nreturn 1"), DONE
    ),
}  # fmt: skip

FINE = custom("return 'fine'")


def make(folder: Path, only: set[str] | None = None) -> Path:
    """A project with a pipeline for each kind, and `healthy`."""
    files = {"metadata.yaml": "name: hostile\n"}
    for name, kind in KINDS.items():
        if only is None or name in only:
            files |= _pipeline(name, kind.code, kind.isolation, SHORT_S if kind.times_out else LONG_S)
    return write(folder, files | _pipeline("healthy", FINE, "", LONG_S))


def _pipeline(name: str, code: str, isolation: str, timeout_s: int) -> dict[str, str]:
    where = f"isolation: {isolation}, " if isolation else ""
    entry = f"- {{uuid: {name}_block, type: custom, {where}timeout: {timeout_s}, upstream_blocks: []}}"
    return {
        f"pipelines/{name}/metadata.yaml": f"blocks:\n{entry}\n",
        f"custom/{name}_block.py": code,
    }
