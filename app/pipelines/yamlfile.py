"""YAML as plain values that remember their lines, within bounds.

libyaml's events are turned into values here, without PyYAML's constructors: no tag can make an object, and
the number of aliases, of values after their expansion, and the depth are counted before memory is spent.
Scalars resolve as in PyYAML's safe loader (and so in Mage), except that dates stay text, as the person wrote
them. Keys are always text: `1:` is "1". What a database cannot keep (NUL, NaN, huge integers) is an error.
"""

import math
import re
from collections.abc import Iterator
from typing import Any

import yaml

from app.pipelines.problems import BadDefinition, DefinitionError

MAX_ALIASES, MAX_VALUES, MAX_DEPTH = 100, 10_000, 32
#: Without aliases the size of the file bounds the number of values; a project may have a thousand blocks.
MAX_VALUES_PLAIN = 100_000

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_CORE = "tag:yaml.org,2002:"
#: Of a list that is a value of the outermost mapping.
_LIST_DEPTH = 2
_ALLOWED_TAGS = {None, "!", *(_CORE + kind for kind in ("str", "int", "float", "bool", "null", "map", "seq"))}


class YamlMap(dict[str, Any]):
    """A mapping with the line it starts on and the line of each key; `fault` is a value in it that was left out."""

    line: int
    lines: dict[str, int]
    fault: DefinitionError | None = None

    def at(self, key: str) -> int:
        """The line of a key, else of the mapping."""
        return self.lines.get(key, self.line)


class YamlList(list[Any]):
    """A list with the line it starts on and the line of each item."""

    line: int
    lines: list[int]


def plain(value: Any) -> Any:
    """The same value in ordinary dicts and lists."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def of_plain(value: Any) -> Any:
    """Ordinary dicts and lists as if they had been read from a file, where nobody knows the lines.

    >>> of_plain({"a": [1]}).at("a")
    0
    """
    if isinstance(value, dict):
        mapping = _mapping(0)
        mapping.update({key: of_plain(item) for key, item in value.items()})
        return mapping
    if isinstance(value, list):
        items = YamlList(of_plain(item) for item in value)
        items.line, items.lines = 0, [0] * len(items)
        return items
    return value


def parse(text: str, file: str, *, tolerant: bool = False) -> YamlMap:
    """The mapping that a YAML text holds; an empty text is an empty mapping. BadDefinition names the line.

    `tolerant`: a value that cannot be kept, inside a mapping of a list of the outermost mapping, is that
    mapping's `fault` and hurts no other entry of the list.
    """
    try:
        value, _line = _Builder(file, tolerant).document(yaml.parse(text, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = " ".join(filter(None, (error.context, error.problem, _quote_hint(text, error))))
        raise BadDefinition(f"not valid YAML: {what}", file, mark.line + 1 if mark else None) from error
    except yaml.YAMLError as error:
        raise BadDefinition(f"not valid YAML: {' '.join(str(error).split())}", file) from error
    if value is None:
        value = _mapping(1)
    if not isinstance(value, YamlMap):
        raise BadDefinition(f"must be a mapping of keys to values, not {describe(value)}", file, 1)
    return value


def _quote_hint(text: str, error: yaml.MarkedYAMLError) -> str:
    """The way out of the commonest mistake: `* * * * *` and `@daily` are not text in YAML unless quoted."""
    lines = text.split("\n")
    for mark in filter(None, (error.problem_mark, error.context_mark)):
        start = lines[mark.line][mark.column : mark.column + 1] if mark.line < len(lines) else ""
        if start and start in "*@`%":
            return f"(a value that begins with {start} must be in quotes)"
    return ""


def describe(value: Any) -> str:
    """What a value is, in YAML's words.

    >>> describe([1]), describe("many"), describe(None)
    ('a list', "the text 'many'", 'nothing')
    """
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return f"the text '{value[:60]}'"
    return "nothing" if value is None else str(value).lower()


def _mapping(line: int) -> YamlMap:
    value = YamlMap()
    value.line, value.lines = line, {}
    return value


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


class _Builder(yaml.resolver.Resolver, yaml.constructor.SafeConstructor):
    """Builds one document from events. Recursive, at most MAX_DEPTH deep."""

    def __init__(self, file: str, tolerant: bool) -> None:
        yaml.resolver.Resolver.__init__(self)
        yaml.constructor.SafeConstructor.__init__(self)
        self.file, self.tolerant = file, tolerant
        self.faults: list[BadDefinition] = []
        self.in_entry = False
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.values = self.aliases = 0

    def document(self, events: Iterator[Any]) -> tuple[Any, int]:
        value, line, documents = None, 1, 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self.bad("holds more than one YAML document", event)
            elif isinstance(event, (yaml.ScalarEvent, yaml.AliasEvent, yaml.CollectionStartEvent)):
                line = _line(event)
                value = self.value(event, events, 1)
        return value, line

    def value(self, event: Any, events: Iterator[Any], depth: int) -> Any:
        """The value that begins with `event`."""
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event)
        if depth > MAX_DEPTH:
            raise self.bad(f"is nested more than {MAX_DEPTH} levels deep", event)
        if event.tag not in _ALLOWED_TAGS:
            raise self.bad(f"the tag '{event.tag}' is not allowed", event)
        before = self.count(1, event)
        value: Any
        if isinstance(event, yaml.ScalarEvent):
            value = self.kept(event)
        elif isinstance(event, yaml.MappingStartEvent):
            value = self.mapping(event, events, depth)
        else:
            value = self.sequence(event, events, depth)
        if event.anchor:  # only now: a value cannot hold itself
            self.anchors[event.anchor] = (value, self.values - before + 1)
        return value

    def count(self, values: int, event: Any) -> int:
        """Add to the number of values, aliases counted as what they stand for; returns the new number."""
        self.values += values
        if self.values > (MAX_VALUES if self.aliases else MAX_VALUES_PLAIN):
            raise self.bad(f"has more than {MAX_VALUES:,} values once its aliases are expanded", event)
        return self.values

    def alias(self, event: Any) -> Any:
        self.aliases += 1
        if self.faults:  # it may stand for what was left out
            raise self.faults[0]
        if self.aliases > MAX_ALIASES:
            raise self.bad(f"has more than {MAX_ALIASES} aliases", event)
        if event.anchor not in self.anchors:
            raise self.bad(f"the alias '*{event.anchor}' stands for nothing before it", event)
        value, size = self.anchors[event.anchor]
        self.count(size, event)
        return value

    def mapping(self, start: Any, events: Iterator[Any], depth: int) -> YamlMap:
        value, merged = _mapping(_line(start)), _mapping(0)
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise self.bad("a key must be plain text", event)
            key = self.text(event.value, event)
            item = self.value(next(events), events, depth + 1)
            if key == "<<" and event.implicit[0]:
                self.merge(item, merged, event)
                continue
            if key in value:
                raise self.bad(f"the key '{key}' is already on line {value.lines[key]}", event)
            value[key], value.lines[key] = item, _line(event)
        for key in merged.keys() - value.keys():
            value[key], value.lines[key] = merged[key], merged.lines[key]
        return value

    def merge(self, item: Any, into: YamlMap, event: Any) -> None:
        """YAML's merge key: what is already there wins, and an earlier mapping wins over a later one."""
        for source in item if isinstance(item, YamlList) else [item]:
            if not isinstance(source, YamlMap):
                raise self.bad("'<<' takes a mapping or a list of mappings", event)
            for key in source.keys() - into.keys():
                into[key], into.lines[key] = source[key], source.at(key)

    def sequence(self, start: Any, events: Iterator[Any], depth: int) -> YamlList:
        value = YamlList()
        value.line, value.lines = _line(start), []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            value.lines.append(_line(event))
            if depth == _LIST_DEPTH and isinstance(event, yaml.MappingStartEvent):
                value.append(self.entry(event, events, depth + 1))
            else:
                value.append(self.value(event, events, depth + 1))
        return value

    def entry(self, event: Any, events: Iterator[Any], depth: int) -> YamlMap:
        """A mapping of a list of the outermost mapping, with its first fault if faults are tolerated."""
        before, self.in_entry = len(self.faults), True
        value: YamlMap = self.value(event, events, depth)
        self.in_entry = False
        value.fault = self.faults[before].error if len(self.faults) > before else None
        return value

    def kept(self, event: Any) -> str | int | float | bool | None:
        """A scalar's value; None in place of one that is an entry's fault."""
        try:
            return self.scalar(event)
        except BadDefinition as bad:
            if not (self.tolerant and self.in_entry):
                raise
            self.faults.append(bad)
            return None

    def scalar(self, event: Any) -> str | int | float | bool | None:
        tag: str = event.tag
        if tag in (None, "!"):
            tag = self.resolve(yaml.ScalarNode, event.value, event.implicit)  # type: ignore[no-untyped-call]
        kind = tag.removeprefix(_CORE)
        text = self.text(event.value, event)
        try:
            if kind == "null":
                return None
            if kind == "bool":
                return bool(self.bool_values[text.lower()])
            if kind in ("int", "float"):
                return self.number(kind, yaml.ScalarNode(tag, text), event)
        except (ValueError, KeyError, OverflowError) as error:
            raise self.bad(f"'{text[:60]}' is not of the type {kind}", event) from error
        return text

    def number(self, kind: str, node: yaml.ScalarNode, event: Any) -> int | float:
        number = self.construct_yaml_int(node) if kind == "int" else self.construct_yaml_float(node)
        if isinstance(number, float) and not math.isfinite(number):
            raise self.bad(f"'{node.value}' is not a finite number", event)
        if isinstance(number, int) and not -(2**63) <= number < 2**63:
            raise self.bad(f"the integer '{node.value[:40]}' does not fit into 64 bits", event)
        return number

    def text(self, text: str, event: Any) -> str:
        if _UNSTORABLE.search(text):
            raise self.bad("text with a NUL or half a surrogate pair cannot be stored", event)
        return text

    def bad(self, message: str, event: Any) -> BadDefinition:
        return BadDefinition(message, self.file, _line(event))
