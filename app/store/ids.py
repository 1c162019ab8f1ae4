"""Integer ids, known before their row is written: a node takes a block of them and gives them out itself."""

from sqlalchemy import Connection, update

from app.store.db import Database
from app.store.sql import ID_BLOCK, insert

BLOCK_SIZE = 1000


def take_block(tx: Connection, name: str, size: int) -> int:
    """Reserve `size` ids of a resource for the caller; returns the first. They are never given out again."""
    statement = insert(tx, ID_BLOCK).values(name=name, next_id=1 + size)
    statement = statement.on_conflict_do_update(
        index_elements=[ID_BLOCK.c.name], set_={"next_id": ID_BLOCK.c.next_id + size}
    ).returning(ID_BLOCK.c.next_id)
    end: int = tx.execute(statement).scalar_one()
    return end - size


def keep_clear(tx: Connection, name: str, last_id: int) -> None:
    """Never give out the ids up to `last_id`: they came from elsewhere."""
    statement = insert(tx, ID_BLOCK).values(name=name, next_id=last_id + 1)
    tx.execute(
        statement.on_conflict_do_update(
            index_elements=[ID_BLOCK.c.name],
            set_={"next_id": statement.excluded.next_id},
            where=ID_BLOCK.c.next_id < statement.excluded.next_id,
        )
    )


def return_block(tx: Connection, name: str, first: int, end: int) -> None:
    """Give back the ids from `first` on, none of which was given out, unless others were reserved after them."""
    unused = (ID_BLOCK.c.name == name, ID_BLOCK.c.next_id == end)
    tx.execute(update(ID_BLOCK).where(*unused).values(next_id=first))


class Ids:
    """Gives out ids of one resource from blocks, asking the database once a block."""

    def __init__(self, db: Database, name: str, size: int = BLOCK_SIZE) -> None:
        self._db, self._name, self._size = db, name, size
        self._next = self._end = 0

    async def take(self, count: int = 1) -> range:
        """`count` consecutive ids."""
        while self._end - self._next < count:
            size = max(self._size, count)
            first = await self._db.write(take_block, self._name, size)
            if self._end - self._next < count:  # else another task has refilled meanwhile
                self._next, self._end = first, first + size
        first, self._next = self._next, self._next + count
        return range(first, first + count)

    async def close(self) -> None:
        """Give back what was not used, so that the numbers go on without a gap after a restart."""
        first, self._next = self._next, self._end
        if first != self._end:
            await self._db.write(return_block, self._name, first, self._end)
