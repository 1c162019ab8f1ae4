"""The house rules that no linter knows, each with a planted fault that it must find.

Floors are import-linter's (see pyproject.toml). Here are the "only" rules: one file that asks the time, one
that reads the environment, and so on, so that a reader knows where to look and a test what to replace.
"""

import ast
import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from docs.make_states import page

ROOT = Path(__file__).resolve().parent.parent
# Programs that the service starts by file path, under any interpreter: the standard library only.
STANDALONE = ("app/executors/child/", "app/executors/warden.py")
# Runs in other people's programs, and knows neither our clock nor our settings: RUNWRIGHT_URL is its own affair.
CLIENT = "app/client/"

Finding = tuple[int, str]


@dataclass(frozen=True)
class Source:
    """A file of ours, parsed. `path` is relative to the repository."""

    path: str
    tree: ast.Module

    def within(self, *places: str) -> bool:
        return any(
            self.path == place or (place[-1] == "/" and self.path.startswith(place)) for place in places
        )

    def nodes(self) -> Iterator[ast.AST]:
        return ast.walk(self.tree)

    def imports(self) -> Iterator[tuple[int, str]]:
        """Line and dotted name of everything imported, `from a import b` as `a.b`."""
        for node in self.nodes():
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)

    def uses(self) -> Iterator[tuple[int, str]]:
        """Line and full dotted name of everything used by a name that an import brought."""
        names = dict(entry for node in self.nodes() for entry in _names_brought_by(node))
        for node in self.nodes():
            dotted = _dotted(node)
            head, _, rest = dotted.partition(".")
            if head in names:
                yield getattr(node, "lineno", 0), f"{names[head]}.{rest}".rstrip(".")


def _names_brought_by(node: ast.AST) -> Iterator[tuple[str, str]]:
    """The names that an import statement binds, with what they stand for."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            top = alias.name.split(".")[0]
            yield (alias.asname, alias.name) if alias.asname else (top, top)
    elif isinstance(node, ast.ImportFrom):
        yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)


def _dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (base := _dotted(node.value)):
        return f"{base}.{node.attr}"
    return ""


def _imported(source: Source, *packages: str) -> Iterator[Finding]:
    for line, name in source.imports():
        if name.split(".")[0] in packages:
            yield line, f"imports {name}"


def _used(source: Source, *names: str) -> Iterator[Finding]:
    for line, name in source.uses():
        if name in names:
            yield line, f"uses {name}"


def sql_only_in_the_store(source: Source) -> Iterator[Finding]:
    if not source.within(
        "app/store/",
        "app/models/tables.py",
        "app/models/tables_access.py",
        "app/models/fields.py",
        "app/models/columns.py",
    ):
        yield from _imported(source, "sqlalchemy", "sqlmodel", "sqlite3", "asyncpg", "alembic")


def time_only_from_the_clock(source: Source) -> Iterator[Finding]:
    if not source.within("app/clock.py", CLIENT, *STANDALONE):
        clocks = ("time", "monotonic", "perf_counter", "time_ns", "monotonic_ns", "perf_counter_ns")
        yield from _used(source, *(f"time.{name}" for name in clocks))
        yield from _used(source, *(f"datetime.datetime.{name}" for name in ("now", "utcnow", "today")))
        yield from _used(source, "datetime.date.today")


def environment_only_in_settings(source: Source) -> Iterator[Finding]:
    if not source.within("app/settings.py", CLIENT, *STANDALONE):
        yield from _used(source, "os.environ", "os.environb", "os.getenv", "os.putenv")


def apscheduler_only_in_timers(source: Source) -> Iterator[Finding]:
    if not source.within("app/scheduler/timers.py"):
        yield from _imported(source, "apscheduler")


def croniter_only_in_timetable(source: Source) -> Iterator[Finding]:
    if not source.within("app/scheduler/timetable.py"):
        yield from _imported(source, "croniter")


def every_task_has_an_owner(source: Source) -> Iterator[Finding]:
    """A TaskGroup, or a named variable or container that somebody awaits; never a task left to itself."""
    for node in source.nodes():
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            called = node.value.func
            name = called.attr if isinstance(called, ast.Attribute) else _dotted(called)
            owner = _dotted(called.value) if isinstance(called, ast.Attribute) else ""
            if name in ("create_task", "ensure_future") and not owner.split(".")[-1].endswith("group"):
                yield node.lineno, f"leaves a task without an owner ({name})"


def no_status_is_assigned(source: Source) -> Iterator[Finding]:
    """Statuses move by the store's guarded statements, never by assignment to a row."""
    for node in source.nodes():
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) and any(
            isinstance(target, ast.Attribute) and target.attr == "status" for target in targets
        ):
            yield node.lineno, "assigns .status"


def the_service_never_unpickles(source: Source) -> Iterator[Finding]:
    if not source.within("app/executors/child/"):
        yield from _imported(source, "pickle", "cloudpickle", "marshal", "shelve", "dill", "joblib")


def child_programs_stand_alone(source: Source) -> Iterator[Finding]:
    """At start they import the standard library and each other; what a block needs comes inside functions."""
    if source.within(*STANDALONE):
        for node in source.tree.body:
            for line, name in Source(source.path, ast.Module([node], [])).imports():
                top = name.split(".")[0]
                inside_function = isinstance(node, ast.FunctionDef | ast.ClassDef)
                if top == "app" or (top not in sys.stdlib_module_names | SIBLINGS and not inside_function):
                    yield line, f"imports {name}"


def files_are_short(source: Source, limit: int = 400) -> Iterator[Finding]:
    length = max((getattr(node, "end_lineno", None) or 0 for node in source.nodes()), default=0)
    if length > limit:
        yield length, f"is longer than {limit} lines: two nouns in one file"


def functions_are_short(source: Source, limit: int = 45) -> Iterator[Finding]:
    for node in source.nodes():
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > limit and (source.path, node.name) not in LONG:
                yield node.lineno, f"{node.name} has {length} lines"


# Modules that the child programs import by plain name, since their own folder is on their path.
SIBLINGS = {path.stem for path in (ROOT / "app/executors/child").glob("*")}
# (file, function): why it may be long.
LONG: dict[tuple[str, str], str] = {}

Rule = Callable[[Source], Iterator[Finding]]

# Each rule, the sources that must break it, and the place where the same sources are allowed, if any.
RULES: dict[Rule, tuple[list[str], str | None]] = {
    sql_only_in_the_store: (
        [
            "import sqlalchemy as sa",
            "from sqlmodel import col",
            "def f():\n    import sqlite3",
            "import asyncpg",
        ],
        "app/store/runs.py",
    ),
    time_only_from_the_clock: (
        [
            "import time\ntime.time()",
            "import time as t\nt.monotonic()",
            "from time import monotonic as m\nm()",
            "from datetime import datetime as dt\ndt.now()",
            "import datetime\nf = datetime.datetime.utcnow",
            "from datetime import date\ndate.today()",
        ],
        "app/clock.py",
    ),
    environment_only_in_settings: (
        [
            "import os\nos.environ['A']",
            "from os import getenv\ngetenv('A')",
            "from os import environ as e\nprint(e)",
        ],
        "app/settings.py",
    ),
    apscheduler_only_in_timers: (
        ["from apscheduler.schedulers.asyncio import AsyncIOScheduler"],
        "app/scheduler/timers.py",
    ),
    croniter_only_in_timetable: (["import croniter"], "app/scheduler/timetable.py"),
    every_task_has_an_owner: (
        [
            "import asyncio\nasyncio.create_task(f())",
            "from asyncio import ensure_future\nensure_future(f())",
            "asyncio.get_running_loop().create_task(f())",
            "self.loop.create_task(f())",
        ],
        None,
    ),
    no_status_is_assigned: (["run.status = 'failed'", "self.run.status: str = 'a'"], None),
    the_service_never_unpickles: (
        ["import pickle", "from cloudpickle import loads", "def f():\n    import marshal"],
        "app/executors/child/outputs.py",
    ),
    files_are_short: (["\n" * 400 + "x = 1"], None),
    functions_are_short: (["def f():\n" + "    x = 1\n" * 45], None),
}


@cache
def sources() -> tuple[Source, ...]:
    paths = sorted((ROOT / "app").rglob("*.py"))
    return tuple(Source(str(p.relative_to(ROOT)), ast.parse(p.read_text(encoding="utf-8"))) for p in paths)


def _name(value: object) -> str:
    return getattr(value, "__name__", "")


@pytest.mark.parametrize("rule", [*RULES, child_programs_stand_alone], ids=_name)
def test_the_house_keeps(rule: Rule) -> None:
    assert len(sources()) > 10
    found = [f"{source.path}:{line} {what}" for source in sources() for line, what in rule(source)]
    assert found == []


@pytest.mark.parametrize("rule", RULES, ids=_name)
def test_a_planted_fault_is_found(rule: Rule) -> None:
    faults, allowed_in = RULES[rule]
    for fault in faults:
        assert list(rule(Source("app/scheduler/planted.py", ast.parse(fault)))), fault
        if allowed_in is not None:
            assert list(rule(Source(allowed_in, ast.parse(fault)))) == []


@pytest.mark.parametrize(
    "fault", ["from app.clock import now", "import orjson", "def f():\n    import app.errors"]
)
def test_a_child_program_that_leans_on_us_is_found(fault: str) -> None:
    assert list(child_programs_stand_alone(Source("app/executors/child/planted.py", ast.parse(fault))))


def test_what_is_allowed_is_not_found() -> None:
    innocent = """
import time, asyncio
from datetime import datetime, UTC
time.sleep(1); datetime.fromtimestamp(0, UTC)
group.create_task(f()); self._group.create_task(f()); task = asyncio.create_task(f())
status = "failed"; run.status == "failed"
"""
    source = Source("app/scheduler/planted.py", ast.parse(innocent))
    assert [finding for rule in RULES for finding in rule(source)] == []


def test_the_page_of_states_is_what_the_tables_say() -> None:
    written = (ROOT / "docs/states.md").read_text(encoding="utf-8")
    assert written == page(), "run `make states`"


def tracked_texts() -> Iterator[tuple[Path, str]]:
    """Every text file of the repository that its .gitignore does not name."""
    ignored = {
        ".git",
        *(line.strip("/") for line in (ROOT / ".gitignore").read_text(encoding="utf-8").split()),
    }
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in ignored]
        for path in (Path(folder, name) for name in files):
            with contextlib.suppress(UnicodeDecodeError):
                yield path, path.read_text(encoding="utf-8")


def test_the_repository_stands_alone() -> None:
    """No word about files or folders that only one machine has."""
    strangers = [".." + "/shared", "/work" + "/", "/root" + "/"]
    texts = list(tracked_texts())
    assert len(texts) > 30
    found = [
        f"{path.relative_to(ROOT)}: {word}" for path, text in texts for word in strangers if word in text
    ]
    assert found == []
