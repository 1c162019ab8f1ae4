"""Who has which id and which name while an import is decided. Pure: moves are noted, not made."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from app.store.adopt import Held, Holdings

Key = tuple[str, str]


class Refused(Exception):
    """Something of Mage's cannot be taken over; the text says why."""


@dataclass(frozen=True, slots=True)
class Move:
    """Give a trigger that is here another id."""

    old_id: int
    new_id: int


class Room:
    """The triggers that are here, by id and by (pipeline, name). `fresh` gives an id that nobody has."""

    def __init__(self, here: Holdings, fresh: Callable[[], int]) -> None:
        self._fresh = fresh
        self._by_id = {held.row.id: held for held in here.live}
        self._names: dict[Key, int] = {_key(held): held.row.id for held in here.live}
        #: what a trigger was called by before it moved
        self._had: dict[Key, int] = {}
        self._evicted: set[Key] = set()
        self.moves: list[Move] = []

    def of_id(self, trigger_id: int) -> Held | None:
        """The trigger that has an id."""
        return self._by_id.get(trigger_id)

    def of_name(self, key: Key) -> Held | None:
        """The trigger that was here under a name."""
        return self._by_id.get(self._names.get(key, 0))

    def id_of_name(self, key: Key) -> int | None:
        """The id under a name, also of a trigger that is made just now."""
        return self._names.get(key)

    def name(self, key: Key, trigger_id: int, *, before: Key | None = None) -> None:
        """Note a name that is taken from now on, and the one that is free again."""
        if before is not None:
            del self._names[before]
        self._names[key] = trigger_id

    def free(self, wanted: int) -> None:
        """Free an id; a trigger that has it gets another, if nobody can have referred to it. Raises Refused."""
        held = self._by_id.get(wanted)
        if held is None:
            return
        if held.used or held.token_hash or held.row.managed_by != "file":
            raise Refused(
                f"its id is that of the trigger '{held.row.name}' of pipeline '{held.row.pipeline_uuid}' here"
            )
        self._move(held, self._fresh())
        self._evicted.add(_key(held))

    def move(self, held: Held, wanted: int) -> str:
        """Give a trigger that is here the id that it has in Mage. Raises Refused when either id is in use."""
        had = self._had.get(_key(held), held.row.id)
        if held.used:
            raise Refused(f"is trigger {had} here and has run as such: callers must use that id")
        self.free(wanted)
        self._move(held, wanted)
        self._evicted.discard(_key(held))
        return f"was trigger {had} here and has the id of Mage now"

    def evicted(self) -> list[tuple[Held, int]]:
        """Triggers that had to make room, with the id they had."""
        return [(held, self._had[key]) for key in sorted(self._evicted) if (held := self.of_name(key))]

    def _move(self, held: Held, new_id: int) -> None:
        key, old_id = _key(held), held.row.id
        self.moves.append(Move(old_id, new_id))
        self._had.setdefault(key, old_id)
        del self._by_id[old_id]
        self._by_id[new_id] = replace(held, row=replace(held.row, id=new_id))
        self._names[key] = new_id


def _key(held: Held) -> Key:
    return held.row.pipeline_uuid, held.row.name
