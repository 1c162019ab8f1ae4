"""What blocks may import of `mage_ai`: alone, and beside a real one."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

CHILD = Path(__file__).parents[2] / "app" / "executors" / "child"

#: A worker's beginning, less the link: the private package, the shim, and a service of three answers.
BEGIN = f"""
import sys
sys.path[:] = [path for path in sys.path if path not in ("", {str(CHILD.parents[2])!r})]
package = type(sys)("_runwright_child")
package.__path__ = [{str(CHILD)!r}]
sys.modules["_runwright_child"] = package
from _runwright_child import asking, shim
def ask(name, payload):
    if name == "get_secret_value":
        if payload["name"] not in SECRETS:
            raise asking.ServiceError("SecretNotFound: there is no secret", "SecretNotFound")
        return SECRETS[payload["name"]]
    if name == "get_global_variables":
        return {{"rows": 5, "dsn": "me:<<secret pw>>@db"}}
    if name == "get_variable":
        return [{{"kind": "json", "value": [1, 2]}}, {{"kind": "json", "value": "x"}}]
    return {{"id": 7, "pipeline_uuid": payload["pipeline_uuid"], "status": "running"}}
asking.ask = ask
SECRETS = {{"pw": "hunter22"}}
shim.install(PROJECT)
"""

#: A stand-in for an installed mage-ai: its own modules tell that they are real.
REAL = {
    "__init__.py": "",
    "data_preparation/__init__.py": "",
    "data_preparation/decorators.py": "def data_loader(f):\n    return 'real'\ndef sql_thing():\n    return 'real'\n",
    "data_preparation/shared/__init__.py": "",
    "data_preparation/shared/secrets.py": (
        "from ..helpers import DEPTH\ndef get_secret_value(name):\n    return 'real'\n"
        "def create_secret():\n    return DEPTH\n"
    ),
    "data_preparation/helpers.py": "DEPTH = 'real helper'\n",
    "io/__init__.py": "",
    "io/postgres.py": "class Postgres: where = 'real'\n",
    "io/file.py": "class FileIO: where = 'real'\n",
    "orchestration/__init__.py": "",
    "orchestration/triggers/__init__.py": "",
    "orchestration/triggers/api.py": "raise RuntimeError('a real one wants a database')\n",
}


def run(code: str, folder: Path, *path: Path) -> str:
    """What the code prints in a process of its own, after the beginning of a worker."""
    script = f"PROJECT = {str(folder)!r}\n{BEGIN}\nsys.path[:0] = {[str(p) for p in path]!r}\n"
    done = subprocess.run(
        [sys.executable, "-c", script + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    for name, text in REAL.items():
        path = tmp_path / "site" / "mage_ai" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "site"


def test_the_modules_that_templates_of_blocks_import_are_there(tmp_path: Path) -> None:
    told = run(
        """
        from mage_ai.data_preparation.decorators import data_loader, sensor, test, condition, callback
        from mage_ai.data_preparation.repo_manager import get_repo_path as older
        from mage_ai.data_preparation.shared.secrets import get_secret_value
        from mage_ai.data_preparation.variable_manager import get_global_variable, get_variable
        from mage_ai.io.config import ConfigFileLoader, ConfigKey
        from mage_ai.io.file import FileIO
        from mage_ai.orchestration.run_status_checker import check_status
        from mage_ai.orchestration.triggers.api import trigger_pipeline
        from mage_ai.settings.repo import get_repo_path
        print(get_repo_path() == older() == PROJECT, get_secret_value("pw"), get_secret_value("no"))
        print(get_global_variable("p", "rows"), get_global_variable("p", "dsn"), get_global_variable("p", "no"))
        print(get_variable("p", "b"), get_variable("p", "b", "output_1"))
        print(ConfigKey.POSTGRES_HOST, trigger_pipeline("other").id)
        """,
        tmp_path,
    )
    assert told.splitlines() == [
        "WARNING: Could not find secret value for secret no.",
        "True hunter22 None",
        "5 me:hunter22@db None",
        "[1, 2] x",
        "POSTGRES_HOST 7",
    ]


@pytest.mark.parametrize(
    ("statement", "missing"),
    [
        ("import mage_ai.io.postgres", "mage_ai.io.postgres"),
        ("from mage_ai.io import postgres", "mage_ai.io.postgres"),
        ("from mage_ai.io.postgres import Postgres", "mage_ai.io.postgres"),
        ("from mage_ai.data_cleaner.transformer_actions.base import BaseAction", "mage_ai.data_cleaner"),
        ("from mage_ai.io.config import AWSSecretLoader", "mage_ai.io.config.AWSSecretLoader"),
        ("import mage_ai; mage_ai.server", "mage_ai.server"),
    ],
)
def test_another_module_is_named_with_the_way_out(tmp_path: Path, statement: str, missing: str) -> None:
    told = run(
        f"""
        try:
            {statement}
        except ImportError as error:
            print(error)
        """,
        tmp_path,
    )
    way_out = "install mage-ai into the interpreter of the project (python: in its metadata.yaml)"
    assert told == f"{missing} is not a part of Runwright: {way_out}"


def test_beside_a_real_one_ours_are_those_that_need_the_service(tmp_path: Path, installed: Path) -> None:
    told = run(
        """
        from mage_ai.orchestration.triggers.api import trigger_pipeline
        from mage_ai.data_preparation.shared.secrets import create_secret, get_secret_value
        from mage_ai.data_preparation.decorators import data_loader, sql_thing
        from mage_ai.io.postgres import Postgres
        from mage_ai.io.file import FileIO
        def load(): return 1
        print(trigger_pipeline("other").id, get_secret_value("pw"), data_loader(load) is load)
        print(create_secret(), sql_thing(), Postgres.where, FileIO.where)
        for statement in ("import mage_ai.io.nothing", "from mage_ai.data_preparation.decorators import nothing"):
            try:
                exec(statement)
            except ImportError as error:
                print(str(error).partition(" (")[0])
        """,
        tmp_path,
        installed,
    )
    assert told.splitlines() == [
        "7 hunter22 True",
        "real helper real real real",
        "No module named 'mage_ai.io.nothing'",
        "cannot import name 'nothing' from 'mage_ai.data_preparation.decorators'",
    ]


IO_CONFIG = """
version: 0.1.1
default:
  # A comment is no template: {{ mage_secret_var('never') }}
  POSTGRES_HOST: "{{ env_var('HOST_OF_DB') }}"
  POSTGRES_PORT: {{ env_var('NO_SUCH_PORT', 5432) }}
  POSTGRES_PASSWORD: "{{ mage_secret_var('pw') }}"
  GOOGLE: "{{ json_value(mage_secret_var('json'), 'key') }}"
other: {POSTGRES_HOST: elsewhere}
"""


def test_io_config_is_rendered_and_read_by_profile(tmp_path: Path) -> None:
    (tmp_path / "io_config.yaml").write_text(IO_CONFIG)
    told = run(
        """
        import os
        os.environ["HOST_OF_DB"] = "db.example"
        SECRETS["json"] = '{"key": "inner"}'
        from mage_ai.io.config import ConfigFileLoader, ConfigKey
        from mage_ai.settings.repo import get_repo_path
        found = ConfigFileLoader(os.path.join(get_repo_path(), "io_config.yaml"), "default")
        print(found[ConfigKey.POSTGRES_HOST], repr(found["POSTGRES_PORT"]), found.get("POSTGRES_PASSWORD"))
        print(found["GOOGLE"], found["NONE"], "NONE" in found, "POSTGRES_HOST" in found)
        print(ConfigFileLoader(profile="other")["POSTGRES_HOST"], ConfigFileLoader(config={"A": 1})["A"])
        """,
        tmp_path,
    )
    assert told.splitlines() == ["db.example 5432 hunter22", "inner None False True", "elsewhere 1"]


@pytest.mark.parametrize(
    ("text", "gone", "words"),
    [
        ("default: {A: \"{{ env_var('A') | upper }}\"}", "jinja2", "install jinja2 into the interpreter"),
        ("default: {A: 1}", "yaml", "install pyyaml"),
        ("default: {A: 1}\nspare: {}", "", "has no profile 'prod'; it has: default, spare"),
        ("default: {A: \"{{ mage_secret_var('none') }}\"}", "", "SecretNotFound: there is no secret"),
        ("default: {A: \"{{ aws_secret_var('x') }}\"}", "", "not supported: use env_var or mage_secret_var"),
        ("default:\n  A: 'hunter22\n", "", ":3 is not valid YAML: found unexpected end of stream"),
    ],
)
def test_what_is_wrong_with_io_config_is_said(tmp_path: Path, text: str, gone: str, words: str) -> None:
    (tmp_path / "io_config.yaml").write_text(text)
    told = run(
        f"""
        sys.modules[{gone!r}] = None
        from mage_ai.io.config import ConfigFileLoader
        try:
            ConfigFileLoader(profile="prod" if "spare" in {text!r} else "default")
        except Exception as error:
            print(error)
        """,
        tmp_path,
    )
    assert words in told and "hunter22" not in told


def test_a_template_of_io_config_may_do_more_where_jinja2_is(tmp_path: Path) -> None:
    (tmp_path / "io_config.yaml").write_text("default: {A: \"{{ mage_secret_var('pw') | upper }}\"}")
    code = "from mage_ai.io.config import ConfigFileLoader\nprint(ConfigFileLoader()['A'])"
    assert run(code, tmp_path) == "HUNTER22"


def test_files_of_many_formats_come_back(tmp_path: Path) -> None:
    told = run(
        """
        import pandas as pd
        from mage_ai.io.file import FileIO
        frame = pd.DataFrame({"n": [1, 2, 3], "s": ["a", "b", "c"]})
        for name in ("x.csv", "deep/x.json", "x.parquet", "x.tsv", "x.jsonl"):
            FileIO().export(frame, name)
            print(FileIO().load(name).equals(frame), len(FileIO().load(name, limit=2)))
        try:
            FileIO().load("x.unknown")
        except ValueError as error:
            print(error)
        """,
        tmp_path,
    )
    assert told.splitlines() == ["True 2"] * 5 + [
        "FileIO cannot tell the format of 'x.unknown': give format= csv, json, parquet …"
    ]
