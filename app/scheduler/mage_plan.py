"""What becomes of each row of Mage's database: the decisions of an import, and the report. Pure.

Ids and tokens stay, so that the URLs of callers go on working. A second run changes nothing: what was made
from a row keeps the row's fingerprint, and what was changed here since is not overwritten.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from app.models.pipeline import Pipeline
from app.models.states import ScheduleType
from app.pipelines.catalogue import Catalogue
from app.pipelines.project import ProjectConfig
from app.pipelines.triggers import MAX_NAME, TriggerEntry
from app.scheduler import sync
from app.scheduler.mage_room import Move, Refused, Room
from app.scheduler.mage_trigger import fingerprint, proper_name, token_hash, translate
from app.store.adopt import Held, Holdings
from app.store.mage import MageMatcher, MageRows, MageTrigger

#: Begins the digest of a trigger that an import made: the row's fingerprint follows, and the revision it made.
_OURS = "mage:"


class Result(StrEnum):
    """What became of something of Mage's."""

    TAKEN = "taken"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    REFUSED = "refused"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the report."""

    kind: str
    id: int | None = None
    pipeline: str = ""
    name: str
    result: Result
    why: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """The project that takes over. `repo_paths`: the names under which Mage knew its folder."""

    project: ProjectConfig
    pipelines: Mapping[str, Pipeline | None]
    entries: Mapping[tuple[str, str], TriggerEntry]
    unread: frozenset[str] = frozenset()
    repo_paths: frozenset[str] = frozenset()

    @classmethod
    def of(cls, catalogue: Catalogue, repo_paths: frozenset[str]) -> "Place":
        """The place that a catalogue describes."""
        return cls(
            catalogue.project,
            {entry.uuid: entry.pipeline for entry in catalogue.entries()},
            {(entry.pipeline_uuid, entry.name): entry for entry in catalogue.triggers()},
            catalogue.unread_triggers(),
            repo_paths,
        )


@dataclass(frozen=True, slots=True)
class Put:
    """Make a trigger, or write some columns of one."""

    id: int
    values: Mapping[str, Any]
    new: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done, moves first, and what is to be said about it."""

    moves: tuple[Move, ...]
    puts: tuple[Put, ...]
    lines: list[Line]


def decide(rows: MageRows, here: Holdings, place: Place, fresh: Callable[[], int]) -> Plan:
    """What becomes of every row. `fresh` gives an id that nobody has, for a trigger that must make room."""
    decider = _Decider(place, Room(here, fresh), here.deleted)
    lines = [decider.line(row) for row in rows.triggers]
    lines += decider.evicted()
    ours = {row.id for row in rows.triggers if _foreign(row, place) is None}
    lines += [_matcher(matcher, ours) for matcher in rows.matchers]
    return Plan(tuple(decider.room.moves), tuple(decider.puts), lines)


@dataclass(slots=True)
class _Decider:
    """Goes through the rows in the order of their ids."""

    place: Place
    room: Room
    deleted: frozenset[int]
    puts: list[Put] = field(default_factory=list)
    #: entries of files that have found their row
    claimed: set[tuple[str, str]] = field(default_factory=set)

    def line(self, row: MageTrigger) -> Line:
        """Decide one trigger."""
        try:
            result, why = self._decide(row)
        except Refused as refused:
            result, why = Result.REFUSED, [str(refused)]
        return Line(
            kind="trigger",
            id=row.id,
            pipeline=row.pipeline_uuid,
            name=row.name,
            result=result,
            why="; ".join(why),
        )

    def evicted(self) -> list[Line]:
        """Triggers of ours whose id Mage has given to another."""
        return [
            Line(
                kind="trigger",
                id=held.row.id,
                pipeline=held.row.pipeline_uuid,
                name=held.row.name,
                result=Result.CHANGED,
                why=f"was trigger {had} here, which is the id of another in Mage",
            )
            for held, had in self.room.evicted()
        ]

    def _decide(self, row: MageTrigger) -> tuple[Result, list[str]]:
        if (why := _foreign(row, self.place)) is not None:
            return Result.SKIPPED, [why]
        _check_usable(row, self.place)
        if row.id in self.deleted:
            return Result.UNCHANGED, ["was deleted here"]
        key, held = (row.pipeline_uuid, proper_name(row)), self.room.of_id(row.id)
        taken_before = held is not None and (held.digest or "").startswith(_OURS)
        if key in self.place.entries and key not in self.claimed and not taken_before:
            self.claimed.add(key)
            return self._of_file(row, self.place.entries[key])
        if held is not None and taken_before:
            return self._again(row, held)
        if held is not None and self._is_the_same(row, held, key):
            return Result.UNCHANGED, ["is here already"]
        return self._put(row, None)

    def _is_the_same(self, row: MageTrigger, held: Held, key: tuple[str, str]) -> bool:
        """Whether a trigger that was edited here, or whose file has gone, came from this row."""
        token = token_hash(row, self.place.project)
        same_token = token is not None and token == held.token_hash
        return same_token or self.room.id_of_name(key) == row.id

    def _again(self, row: MageTrigger, held: Held) -> tuple[Result, list[str]]:
        """A row that has been taken over before."""
        known, _, revision = (held.digest or "").removeprefix(_OURS).partition(":")
        if known == fingerprint(row):
            return Result.UNCHANGED, []
        if held.row.revision != int(revision):
            raise Refused("changed in Mage and here since the last import: stays as it is here")
        _, why = self._put(row, held)
        if held.token_hash is not None and held.token_hash != token_hash(row, self.place.project):
            why.append("has another token here, which stays")
        return Result.CHANGED, ["changed in Mage since the last import", *why]

    def _put(self, row: MageTrigger, held: Held | None) -> tuple[Result, list[str]]:
        """A trigger of the database's own, new or made by an earlier import."""
        name = self._free_name(row)
        found = translate(row, name, self.place.pipelines[row.pipeline_uuid], self.place.project)
        if held is None:
            self.room.free(row.id)
        before = (held.row.pipeline_uuid, held.row.name) if held is not None else None
        self.room.name((row.pipeline_uuid, name), row.id, before=before)
        revision = 1 if held is None else held.row.revision + 1
        values = {
            **sync.columns_of(found.entry),
            "token_hash": (held and held.token_hash) or found.entry.token_hash,
            "digest": f"{_OURS}{fingerprint(row)}:{revision}",
        }
        self.puts.append(Put(row.id, values, new=held is None))
        changes = [*([f"named '{name}'"] if name != row.name else []), *found.changes]
        return (Result.CHANGED if changes else Result.TAKEN), [*changes, *found.remarks]

    def _free_name(self, row: MageTrigger) -> str:
        """The row's name, with its id behind it when another trigger of the pipeline has the name."""
        name, suffix = proper_name(row), f" ({row.id})"
        while True:
            key = (row.pipeline_uuid, name)
            if self.room.id_of_name(key) in (None, row.id) and key not in self.place.entries:
                return name
            name = name[: MAX_NAME - len(suffix)] + suffix

    def _of_file(self, row: MageTrigger, entry: TriggerEntry) -> tuple[Result, list[str]]:
        """A trigger that is also in triggers.yaml: the file says what it is, the id and the token are Mage's."""
        key = (entry.pipeline_uuid, entry.name)
        token = entry.token_hash or token_hash(row, self.place.project)
        remarks = _beside_the_file(row, entry, self.place.project)
        columns = {"token_hash": token} if token else {}
        held = self.room.of_name(key)
        if held is None:
            self.room.free(row.id)
            self.room.name(key, row.id)
            self.puts.append(Put(row.id, {**sync.columns_of(entry), **columns}, new=True))
            return Result.TAKEN, ["is in triggers.yaml, which stays in charge", *remarks]
        done = [] if held.row.id == row.id else [self.room.move(held, row.id)]
        if token and held.token_hash is None:
            self.puts.append(Put(row.id, columns, new=False))
            done.append("has the token of Mage now")
        elif token and held.token_hash != token:
            remarks.insert(0, "has another token here, which stays")
        return (Result.CHANGED if done else Result.UNCHANGED), [*done, *remarks]


def _foreign(row: MageTrigger, place: Place) -> str | None:
    """Why a row is none of this project's triggers."""
    if row.repo_path is not None and row.repo_path.rstrip("/") not in place.repo_paths:
        return f"belongs to the project in {row.repo_path}"
    if row.backfill is not None:
        return f"was made by the backfill '{row.backfill}' for itself"
    if row.schedule_type is None:
        return "has no type, as the triggers that Mage makes for backfills"
    return None


def _check_usable(row: MageTrigger, place: Place) -> None:
    """Raises Refused for a trigger that nothing here can run."""
    if row.global_data_product_uuid is not None:
        raise Refused(
            f"global data products do not exist here, and it belongs to '{row.global_data_product_uuid}'"
        )
    if row.schedule_type == "event":
        raise Refused("event triggers do not run yet")
    if row.schedule_type not in (ScheduleType.TIME, ScheduleType.API):
        raise Refused(f"its type '{row.schedule_type}' is not known")
    if row.pipeline_uuid not in place.pipelines:
        raise Refused(f"there is no pipeline '{row.pipeline_uuid}' in the project")
    if row.pipeline_uuid in place.unread:
        raise Refused(f"pipelines/{row.pipeline_uuid}/triggers.yaml cannot be read, and may have a say in it")


def _beside_the_file(row: MageTrigger, entry: TriggerEntry, project: ProjectConfig) -> list[str]:
    """Where a file and Mage's database do not say the same about a trigger."""
    found = []
    if entry.error is not None:
        found.append(f"set aside: {entry.error}")
    if entry.status != row.status:
        found.append(f"{entry.status} by the file, {row.status} in Mage")
    if missing := sorted({*row.tags} - {*entry.tags}):
        found.append(
            f"tags that are in Mage's database only: {', '.join(missing)} (`tags:` in the file keeps them)"
        )
    if entry.schedule_interval == "@weekly" and project.week_start == "sunday":
        found.append("@weekly is Sunday here, Monday in Mage (`week_start: monday` in metadata.yaml)")
    return found


def _matcher(matcher: MageMatcher, ours: set[int]) -> Line:
    starts = [trigger_id for trigger_id in matcher.trigger_ids if trigger_id in ours]
    why = "starts no trigger of this project"
    if starts:
        why = f"events do not start runs yet; it is for trigger {', '.join(map(str, starts))}"
    result = Result.REFUSED if starts else Result.SKIPPED
    return Line(kind="event matcher", id=matcher.id, name=matcher.name, result=result, why=why)
