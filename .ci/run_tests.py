"""Runs pytest with the arguments given; as root, as an unprivileged user in a private copy of the tree.

Root would hide every fault of permissions, and Postgres refuses root. The copy lies in the temporary folder,
belongs to that user, has an environment of its own that borrows the packages of `.venv`, and is removed at
the end. Whatever of the interpreter or of `.venv` that user cannot reach (a checkout in /root) is copied too.
"""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """The exit code of pytest."""
    if os.geteuid() != 0:
        return subprocess.run(_pytest(sys.executable), cwd=ROOT, env=_environment(), check=False).returncode
    with tempfile.TemporaryDirectory(prefix="runwright-tests-", ignore_cleanup_errors=True) as name:
        return _as_user(Path(name))


def _pytest(python: str | Path) -> list[str]:
    return [str(python), "-m", "pytest", *sys.argv[1:]]


def _environment() -> dict[str, str]:
    """Ours, less what would make the tests depend on how somebody runs his own service."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RUNWRIGHT_")}


def _as_user(box: Path) -> int:
    box.chmod(0o711)
    user = pwd.getpwuid(65534)
    tree = box / "tree"
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").replace("/", "").split()
    shutil.copytree(ROOT, tree, symlinks=True, ignore=shutil.ignore_patterns(".git", *ignored))
    python = _environment_of_its_own(box, tree, user.pw_uid)
    for folder in ("home", "tmp", "run"):
        (box / folder).mkdir(mode=0o700)
    _give(box, "tree", "home", "tmp", "run", user=user)
    own = {"HOME": box / "home", "TMPDIR": box / "tmp", "XDG_RUNTIME_DIR": box / "run"}
    who = {"USER": user.pw_name, "LOGNAME": user.pw_name, "VIRTUAL_ENV": tree / ".venv"}
    environment = _environment() | {name: str(value) for name, value in (own | who).items()}
    # The copy is thrown away, so its bytecode litters nothing, and every process a test starts is quicker.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    print(f"Running the tests as {user.pw_name} in {tree}", flush=True)
    return _run(_pytest(python), tree, environment, user.pw_uid, user.pw_gid)


def _give(box: Path, *folders: str, user: pwd.struct_passwd) -> None:
    for folder in (box / name for name in folders):
        for path in (folder, *folder.rglob("*")):
            os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)


def _run(command: list[str], cwd: Path, environment: dict[str, str], uid: int, gid: int) -> int:
    process = subprocess.Popen(command, cwd=cwd, env=environment, user=uid, group=gid, extra_groups=[])
    # Ctrl-C reaches pytest by itself; we only stay to clean up after it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda _number, _frame: process.send_signal(signal.SIGINT))
    return process.wait()


def _environment_of_its_own(box: Path, tree: Path, uid: int) -> Path:
    """Make `.venv` in the copy: it imports the copy's `app` and the packages of our environment."""
    interpreter = _reachable_interpreter(box, uid)
    packages = Path(sysconfig.get_path("purelib"))
    if not _can_read(packages / "pytest" / "__init__.py", uid):
        packages = shutil.copytree(packages, box / "packages", symlinks=True, copy_function=_link_or_copy)
        _open(box / "packages")
    subprocess.run([interpreter, "-m", "venv", "--without-pip", tree / ".venv"], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    pth = tree / ".venv" / "lib" / version / "site-packages" / "borrowed.pth"
    pth.write_text(f"{tree}\n{packages}\n", encoding="utf-8")
    _copy_commands(Path(sys.executable).parent, tree / ".venv" / "bin")
    return tree / ".venv" / "bin" / "python"


def _copy_commands(ours: Path, theirs: Path) -> None:
    """Commands such as `runwright` and `ruff`; the scripts among them name their Python in the first line."""
    for command in ours.iterdir():
        target = theirs / command.name
        if not command.is_symlink() and not target.exists():
            content = command.read_bytes()
            is_script = content.startswith(b"#!")
            target.write_bytes(content.replace(bytes(ours), bytes(theirs)) if is_script else content)
            target.chmod(0o755)


def _reachable_interpreter(box: Path, uid: int) -> Path:
    """Our interpreter, else another of the same version, else a copy of ours."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    folders = [Path(sys.base_prefix) / "bin", *(Path(folder) for folder in os.get_exec_path())]
    for folder in folders:
        if _works(folder / name, uid):
            return folder / name
    unneeded = shutil.ignore_patterns("site-packages", "test", "*.a", "config-*")
    shutil.copytree(
        sys.base_prefix, box / "python", symlinks=True, ignore=unneeded, copy_function=_link_or_copy
    )
    _open(box / "python")
    if _works(box / "python" / "bin" / name, uid):
        return box / "python" / "bin" / name
    way_out = f"install a Python that is not, such as by: apt-get install {name}-venv"
    sys.exit(f"{sys.base_prefix} is closed to other users; {way_out}")


def _works(python: Path, uid: int) -> bool:
    """Whether that user can run it, with what the tests need and in the version that our packages are for."""
    program = f"import ssl, sqlite3, venv, sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    return _succeeds([python, "-c", program], uid)


def _can_read(path: Path, uid: int) -> bool:
    """Asked of the system, which knows about links, groups and ACLs."""
    return _succeeds(["/bin/sh", "-c", 'test -r "$0"', path], uid)


def _succeeds(command: list[str | Path], uid: int) -> bool:
    quiet = subprocess.DEVNULL
    try:
        done = subprocess.run(
            command, user=uid, group=uid, extra_groups=[], check=False, stdout=quiet, stderr=quiet, cwd="/"
        )
    except (FileNotFoundError, PermissionError):
        return False
    return done.returncode == 0


def _link_or_copy(source: str, target: str) -> str:
    """A hard link is quick, but keeps the mode; a closed file is copied, to be opened."""
    try:
        if Path(source).stat().st_mode & 0o004:
            os.link(source, target)
            return target
    except OSError:
        pass  # another file system
    return str(shutil.copy2(source, target))


def _open(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        mode = path.lstat().st_mode
        if path.is_dir() or (path.is_file() and not path.is_symlink() and path.stat().st_nlink == 1):
            path.chmod(mode | 0o444 | (0o111 if path.is_dir() or mode & 0o100 else 0))


if __name__ == "__main__":
    sys.exit(main())
