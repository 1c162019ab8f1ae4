"""Secrets for those who may have them: values for blocks, names for people."""

import re
from functools import partial
from typing import Final

from app import clock
from app.errors import FieldError, InvalidInput, NotFound
from app.models.rows import SecretRow
from app.settings import Settings
from app.store import secrets
from app.store.db import Database, is_there
from app.store.opening import open_database
from app.store.vault import MAX_BYTES, Vault

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}", re.ASCII)


class SecretNotFound(NotFound):
    """No secret of that name."""

    code, title = "secret_not_found", "Secret not found"


class Secrets:
    """The secrets of a project. With `borrow` they are another service's, which is only read."""

    def __init__(self, db: Database, settings: Settings, borrow: Settings | None = None) -> None:
        self._db, self._borrow = db, borrow
        owner = borrow or settings
        key = owner.secret_key.get_secret_value() if owner.secret_key else None
        self._vault = Vault(owner.home, key)

    async def value(self, name: str) -> str:
        """A secret's value. Raises SecretNotFound, SecretUnreadable."""
        sealed = await self._sealed(name)
        if sealed is None:
            raise SecretNotFound(
                f"there is no secret '{name[:255]}'", hint=f"Set it: runwright secrets set {name[:255]}"
            )
        return self._vault.open(name, sealed)

    async def _sealed(self, name: str) -> str | None:
        if self._borrow is None:
            return await self._db.read(secrets.sealed, name)
        if not is_there(self._borrow.store_url):
            return None
        service = open_database(self._borrow.store_url, exclusive=False)
        await service.open()
        try:
            return await service.read(secrets.sealed, name)
        finally:
            await service.close()

    async def page(self, *, limit: int, after: str = "") -> list[SecretRow]:
        """Names and times, in the order of the names; never a value."""
        return await self._db.read(secrets.page, limit=limit, after=after)

    async def put(self, name: str, value: str) -> SecretRow:
        """Make a secret or change it. Raises InvalidInput for a name or a value that cannot be kept."""
        if not _NAME.fullmatch(name):
            message = "a name holds letters, digits, '_', '.' and '-', 255 at most"
            raise InvalidInput(f"name: {message}", errors=[FieldError("name", message)])
        if not value or len(value.encode(errors="replace")) > MAX_BYTES:
            message = f"must hold between 1 and {MAX_BYTES} bytes"
            raise InvalidInput(f"value: {message}", errors=[FieldError("/value", message)])
        return await self._db.write(secrets.put, name, partial(self._vault.seal, value), now=clock.now())

    async def remove(self, name: str) -> None:
        """Forget a secret. Raises SecretNotFound."""
        if not await self._db.write(secrets.remove, name):
            raise SecretNotFound(f"there is no secret '{name[:255]}'")

    async def rotate(self) -> int:
        """Seal everything with the first key; how many secrets. A key file gets a new first key before.

        Raises SecretUnreadable, and nothing has changed then but that the file holds one key more.
        """
        vault = self._vault
        count, made = await self._db.write(
            secrets.reseal, vault.begin_rotation, lambda name, sealed: vault.seal(vault.open(name, sealed))
        )
        if made is not None:
            await self._db.write(secrets.alone, partial(vault.end_rotation, made))
        return count
