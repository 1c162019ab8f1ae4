"""Finding the service that a command speaks to, and whom it speaks for."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from app.client import AsyncClient, Client, Retries, Unreachable
from app.errors import InvalidInput, RunwrightError
from app.settings import Settings, environment

T = TypeVar("T")
#: For a person who waits: what is not there in a second is not there.
_IMPATIENT = Retries(count=2, first_s=0.1)
_HINT = "Start one: runwright start PROJECT. Or name it: --server URL, or RUNWRIGHT_URL."


@dataclass(frozen=True, slots=True)
class Service:
    """A service, and the key to show it; what is None the client takes from the environment."""

    url: str | None = None
    key: str | None = None

    def client(self, *, patient: bool = False) -> Client:
        """A client of it; a patient one bridges a restart."""
        return Client(self.url, self.key, retries=None if patient else _IMPATIENT)

    def async_client(self, *, patient: bool = False) -> AsyncClient:
        """The same for an event loop."""
        return AsyncClient(self.url, self.key, retries=None if patient else _IMPATIENT)


def find_service(server: str | None) -> Service:
    """The service that `server` names: an address, or the folder of a project that is served on this machine.

    Without it `RUNWRIGHT_URL`, or the project in the current folder. Raises Unreachable where there is none.
    """
    if _is_address(server):
        return Service(server)
    if server is not None and not Path(server).is_dir():
        raise InvalidInput(f"--server: '{server}' is neither an address nor a folder.", hint=_HINT)
    return _of_folder(Path(server or ""))


def served_or_alone(server: str | None, remote: Callable[[Client], T], alone: Callable[[Path], T]) -> T:
    """What `remote` gets from the service, or `alone` from the project's folder when none runs for it.

    Raises Unreachable where an address is named, by `server` or by `RUNWRIGHT_URL`, and nobody answers.
    """
    try:
        with find_service(server).client() as client:
            return remote(client)
    except Unreachable:
        if _is_address(server):
            raise
    return alone(Path(server or ""))


def _is_address(server: str | None) -> bool:
    return bool(environment().get("RUNWRIGHT_URL")) if server is None else "://" in server


def _of_folder(folder: Path) -> Service:
    from app.cli.project import open_project  # reads definitions: not for those who name the address

    try:
        _, settings = open_project(folder)
        told = json.loads((settings.home / "service.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RunwrightError):
        raise Unreachable(f"No service is running for {folder.resolve()}.", hint=_HINT) from None
    return Service(told["url"], _own_key(settings))


def _own_key(settings: Settings) -> str | None:
    """Who knows the service's own key on its own machine need not name it twice."""
    if environment().get("RUNWRIGHT_API_KEY") or settings.admin_key is None:
        return None
    return settings.admin_key.get_secret_value()
