"""The keys that secrets are sealed with. Nothing else in the service sees a key or a sealed value opened.

Keys are Fernet keys: the first seals, all of them open. They come from RUNWRIGHT_SECRET_KEY (separated by commas or
blanks), else from `secret.key` in the home folder, which is made at first use and is the owner's alone.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Final

from app.errors import Conflict, RunwrightError, StartRefused
from app.store import disk

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

FILE: Final = "secret.key"
#: What Fernet adds, and what base64 makes of it: far below what a row may hold.
MAX_BYTES: Final = 64 * 1024


class SecretUnreadable(Conflict):
    """None of the keys opens the secret."""

    code, title = "secret_unreadable", "Secret cannot be opened"


def new_key() -> str:
    """A key that nobody can guess."""
    from cryptography.fernet import Fernet  # costs 4 MiB: for those who have secrets

    return Fernet.generate_key().decode()


@contextmanager
def _at_hand() -> Iterator[None]:
    """A fault of the key file is no fault of the database, in whose transactions it is used."""
    try:
        yield
    except OSError as error:
        raise RunwrightError(
            f"the key file {FILE} in the home folder cannot be used: {error.strerror or error}"
        ) from error


class Vault:
    """Seals and opens values with the keys of one service. The file is read anew each time: others may change it.

    Raises StartRefused for a given key that is none.
    """

    def __init__(self, home: Path, given: str | None = None) -> None:
        self._file = home / FILE
        self._given = given
        if given is not None:
            self._fernet(_split(given))

    def seal(self, value: str) -> str:
        """The value, sealed with the first key. The key file is made if need be."""
        return self._fernet(self._keys() or [self._make_file()]).encrypt(value.encode()).decode()

    def open(self, name: str, sealed: str) -> str:
        """The value of the secret `name`. Raises SecretUnreadable."""
        from cryptography.fernet import InvalidToken

        if keys := self._keys():
            with suppress(InvalidToken):
                return self._fernet(keys).decrypt(sealed.encode()).decode()
        raise SecretUnreadable(
            f"the secret '{name}' was sealed with another key",
            hint="Give that key too in RUNWRIGHT_SECRET_KEY, behind the present one, or set the secret again.",
        )

    def begin_rotation(self) -> str | None:
        """Put a new key before the old ones, where the keys are in the file; given ones are their giver's to change.

        The new key. Who rotates at the same time must be kept away, also from :meth:`end_rotation`.
        """
        if self._given is not None or not (keys := self._keys()):
            return None
        self._write([made := new_key(), *keys])
        return made

    def end_rotation(self, made: str) -> None:
        """Drop the keys before `made` from the file: call it when everything is sealed with that or a later one."""
        if made in (keys := self._keys()):
            self._write(keys[: keys.index(made) + 1])

    @_at_hand()
    def _keys(self) -> Sequence[str]:
        if self._given is not None:
            return _split(self._given)
        with suppress(FileNotFoundError):
            return _split(self._file.read_text(encoding="utf-8"))
        return ()

    @_at_hand()
    def _make_file(self) -> str:
        """Make the key file; the key in it, which is another process's if that was faster."""
        made = self._write_beside([new_key()])
        try:
            os.link(made, self._file)  # whole or not at all, and only if there is none
        except FileExistsError:
            pass
        finally:
            made.unlink()
        disk.sync(self._file.parent)
        return self._keys()[0]

    @_at_hand()
    def _write(self, keys: Sequence[str]) -> None:
        self._write_beside(keys).replace(self._file)
        disk.sync(self._file.parent)  # nothing may be sealed with a key that a power cut could take away

    def _write_beside(self, keys: Sequence[str]) -> Path:
        path = self._file.with_name(f".{FILE}.{token_hex(8)}")
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w") as stream:
            stream.write("".join(f"{key}\n" for key in keys))
            stream.flush()
            os.fsync(stream.fileno())
        return path

    def _fernet(self, keys: Sequence[str]) -> "MultiFernet":
        from cryptography.fernet import Fernet, MultiFernet

        try:
            return MultiFernet([Fernet(key) for key in keys])
        except ValueError:
            if self._given is None:
                raise SecretUnreadable(
                    f"the key file {FILE} in the home folder holds something that is no key",
                    hint="Put the key back that was there.",
                ) from None
            raise StartRefused(
                "RUNWRIGHT_SECRET_KEY holds something that is no key.", hint="Make one: runwright secrets key"
            ) from None


def _split(text: str) -> list[str]:
    return [key for key in re.split(r"[\s,]+", text) if key]
