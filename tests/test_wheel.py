"""The wheel, installed outside the checkout, is a working Runwright."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"app", "runwright"}


def run(*command: str | Path, cwd: Path) -> str:
    """Output of a command that must succeed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = ("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT)
    run(sys.executable, "-m", "pip", "--disable-pip-version-check", *build, cwd=folder)
    (built,) = folder.glob("runwright-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of an environment with nothing of ours but the wheel; dependencies are borrowed."""
    folder = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
    # After the installation, so that pip does not take the checkout's own distribution for an older one.
    borrowed = [path for path in sys.path if path.endswith("site-packages")]
    (packages,) = (folder / "lib").glob("python3*/site-packages")
    (packages / "borrowed.pth").write_text("\n".join(borrowed), encoding="utf-8")
    return folder / "bin"


def test_the_wheel_has_what_serving_needs_and_nothing_else(wheel: Path) -> None:
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")}
    files = [path for name in PACKAGES for path in (ROOT / name).rglob("*") if path.is_file()]
    sources = {str(path.relative_to(ROOT)) for path in files if path.suffix != ".pyc"}
    migrations = {
        f"app/migrations/{path.relative_to(ROOT / 'alembic')}"
        for path in (ROOT / "alembic").rglob("*.py")
        if "__pycache__" not in path.parts
    }
    assert len(migrations) >= 2  # env.py and the first version
    assert sources | migrations <= inside
    assert {name.split("/")[0] for name in inside if ".dist-info" not in name} == PACKAGES
    assert not [name for name in inside if name.endswith((".pyc", ".db"))]


def test_it_is_not_the_checkout_that_runs(installed: Path, tmp_path: Path) -> None:
    where = run(installed / "python", "-c", "import app; print(app.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)


def test_it_migrates_a_database(installed: Path, tmp_path: Path) -> None:
    program = "from app.store.migrate import upgrade; upgrade('sqlite:///here.db')"
    run(installed / "python", "-c", program, cwd=tmp_path)
    assert (tmp_path / "here.db").stat().st_size > 0


@pytest.mark.parametrize("command", ["runwright", "mage"])
def test_both_commands_are_there(command: str, installed: Path, tmp_path: Path) -> None:
    said = run(installed / command, "--help", cwd=tmp_path)
    assert "run" in said and "start" in said and "validate" in said


def test_it_validates_a_project(installed: Path, tmp_path: Path) -> None:
    said = run(installed / "runwright", "validate", ROOT / "examples" / "quickstart", cwd=tmp_path)
    assert "pipelines: 4" in said


def test_it_runs_a_pipeline(installed: Path, quickstart: Path, tmp_path: Path) -> None:
    said = run(installed / "mage", "run", quickstart, "hello", cwd=tmp_path)
    assert "HELLO, WORLD!" in said
