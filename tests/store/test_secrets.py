"""Sealed values and their keys when several change them at once, on both databases."""

from functools import partial
from pathlib import Path

import pytest

from app import clock
from app.errors import RunwrightError
from app.store import secrets
from app.store.vault import FILE, Vault
from tests.store.conftest import Bench


def renew(vault: Vault, name: str, sealed: str) -> str:
    return vault.seal(vault.open(name, sealed))


async def test_a_secret_that_is_set_during_a_rotation_is_sealed_with_the_new_key(
    bench: Bench, tmp_path: Path
) -> None:
    service, tool = Vault(tmp_path), Vault(tmp_path)
    await bench.db.write(secrets.put, "k", partial(service.seal, "one"), now=clock.now())
    (count, made), _, waited = await bench.cross(
        lambda tx: secrets.reseal(tx, tool.begin_rotation, partial(renew, tool)),
        lambda tx: secrets.put(tx, "k", partial(service.seal, "two"), now=clock.now()),
    )
    assert (count, waited) == (1, True)
    assert made is not None
    await bench.db.write(secrets.alone, partial(tool.end_rotation, made))
    assert len((tmp_path / FILE).read_text().split()) == 1
    sealed = await bench.db.read(secrets.sealed, "k")
    assert sealed is not None and service.open("k", sealed) == "two"


def test_a_rotation_that_ends_leaves_the_key_of_one_that_has_begun(tmp_path: Path) -> None:
    one, other = Vault(tmp_path), Vault(tmp_path)
    old = one.seal("x")
    mine = one.begin_rotation()
    sealed = renew(one, "k", old)
    theirs = other.begin_rotation()
    assert mine is not None and theirs is not None
    one.end_rotation(mine)
    assert other.open("k", sealed) == "x", "they have sealed nothing anew yet"
    sealed = renew(other, "k", sealed)
    other.end_rotation(theirs)
    one.end_rotation(mine)
    assert one.open("k", sealed) == "x"
    assert (tmp_path / FILE).read_text().split() == [theirs]


async def test_a_key_file_that_cannot_be_made_is_no_fault_of_the_database(
    bench: Bench, tmp_path: Path
) -> None:
    nowhere = Vault(tmp_path / "none")
    with pytest.raises(RunwrightError, match=r"the key file secret\.key in the home folder cannot be used"):
        await bench.db.write(secrets.put, "k", partial(nowhere.seal, "one"), now=clock.now())
