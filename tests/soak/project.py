"""The project that is killed: pipelines of every shape, whose blocks write what they do outside the service.

A block holds a file lock while it works. The kernel lets go of it when the process is gone, so a second
process that finds it taken has proved that two attempts of one block overlap.
"""

from pathlib import Path
from textwrap import dedent, indent

EFFECTS = '''
"""The ledger of effects: one line at the begin and one at the end of every attempt, each on disk at once."""

import fcntl
import json
import os
import time
from contextlib import contextmanager
from pathlib import Path

FOLDER = Path(os.environ["SOAK_LEDGER"])


def write(kind, kwargs):
    line = {
        "kind": kind,
        "run": kwargs["pipeline_run_id"],
        "block": kwargs["block_uuid"],
        "attempt": kwargs["retry"]["attempts"],
        "pid": os.getpid(),
        "at": time.time(),
    }
    fd = os.open(FOLDER / "ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(fd, (json.dumps(line) + "\\n").encode())
    os.fsync(fd)
    os.close(fd)


@contextmanager
def effect(kwargs, seconds):
    with open(FOLDER / f"{kwargs['pipeline_run_id']}.{kwargs['block_uuid']}", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            write("overlap", kwargs)
        write("begin", kwargs)
        time.sleep(seconds)
        yield
        write("end", kwargs)


def first_time(kwargs):
    """True once for a block of a run, whatever is killed."""
    try:
        os.close(os.open(FOLDER / f"tried.{kwargs['pipeline_run_id']}.{kwargs['block_uuid']}", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True
'''

#: block -> seconds that it works
BLOCKS = {
    **{f"c{n}": 0.02 for n in range(1, 6)},
    **{f"f{n}": 0.05 for n in range(1, 5)},
    **{"root": 0.01, "join": 0.01, "long": 1.2, "after_long": 0.01, "after_sensor": 0.01},
    **{"t1": 0.0, "t2": 0.0, "lazy": 1.5, "endless": 60.0, "called": 0.1, "brief": 0.0},
}
FAILS_FIRST = {"f2"}

_PIPELINES = {
    "chain": {"c1": [], "c2": ["c1"], "c3": ["c2"], "c4": ["c3"], "c5": ["c4"]},
    "fan": {"root": [], **{f"f{n}": ["root"] for n in range(1, 5)}, "join": ["f1", "f2", "f3", "f4"]},
    "slow": {"long": [], "after_long": ["long"]},
    "sensing": {"wait": [], "after_sensor": ["wait"]},
    "ticking": {"t1": [], "t2": ["t1"]},
    "lazily": {"lazy": []},
    "endless": {"endless": []},
    "parent": {"asks": []},
    "child": {"called": []},
    "three_at_once": {"brief": []},
}
#: what a pipeline's file says besides its blocks
_TOP = {"three_at_once": "concurrency_config: {pipeline_run_limit_all_triggers: 3}\n"}
_TRIGGERS = {
    "ticking": [
        ("each_second", "* * * * * *", {}),
        ("each_third", "* * * * * */3", {"pipeline_run_limit": 2}),
    ],
    "lazily": [("no_overlap", "* * * * * *", {"skip_if_previous_running": True})],
}

_CODE = """
from utils.effects import effect, first_time

@custom
def {name}(*args, **kwargs):
    with effect(kwargs, {seconds}):
        {body}
    return "{name}"
"""
_FAILING = "if first_time(kwargs): raise RuntimeError('the first time fails')"
_SENSOR = """
import os, time
from pathlib import Path

@sensor
def wait(*args, **kwargs):
    mark = Path(os.environ["SOAK_LEDGER"], f"sensor.{kwargs['pipeline_run_id']}")
    if not mark.exists():
        mark.touch()
    return time.time() - mark.stat().st_mtime > 1.5
"""
_ASKS = """
from mage_ai.orchestration.triggers.api import trigger_pipeline
from utils.effects import effect

@custom
def asks(*args, **kwargs):
    with effect(kwargs, 0.0):
        run = trigger_pipeline("child", check_status=True, poll_interval=1, error_on_failure=True)
    return run.id
"""


def make(folder: Path, *, triggers: bool = True) -> Path:
    """Write the project into `folder`."""
    files = {"metadata.yaml": "name: soak\n", "utils/__init__.py": "", "utils/effects.py": EFFECTS}
    for name, seconds in BLOCKS.items():
        body = _FAILING if name in FAILS_FIRST else "pass"
        files[f"custom/{name}.py"] = _CODE.format(name=name, seconds=seconds, body=body)
    files |= {"sensors/wait.py": _SENSOR, "custom/asks.py": _ASKS}
    for uuid, graph in _PIPELINES.items():
        blocks = "".join(map(_block, graph, graph.values()))
        files[f"pipelines/{uuid}/metadata.yaml"] = f"{_TOP.get(uuid, '')}blocks:\n{blocks}"
        if triggers and uuid in _TRIGGERS:
            entries = "".join(_trigger(*entry) for entry in _TRIGGERS[uuid])
            files[f"pipelines/{uuid}/triggers.yaml"] = "triggers:\n" + entries
    return write(folder, files)


def write(folder: Path, files: dict[str, str]) -> Path:
    """Files by relative path, indented as it suits the caller."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
    return folder


def _block(name: str, upstream: list[str]) -> str:
    sensor = name == "wait"
    lines = [f"uuid: {name}", f"type: {'sensor' if sensor else 'custom'}", f"upstream_blocks: {upstream}"]
    if sensor:
        lines.append("configuration: {interval: 0.2}")
    # A worker that is killed costs a try; and some fail the first time.
    lines.append("retry_config: {retries: 5, delay: 0.3}")
    return indent("\n".join(lines), "  ").replace("  ", "- ", 1) + "\n"


def _trigger(name: str, interval: str, settings: dict[str, object]) -> str:
    return (
        f"- name: {name}\n  schedule_type: time\n  schedule_interval: '{interval}'\n  status: active\n"
        f"  settings: {settings}\n"
    )
