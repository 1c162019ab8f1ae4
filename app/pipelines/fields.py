"""Typed reading of a mapping of a definition: a wrong type is an error with its line, null is as good as absent."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from app.pipelines.problems import BadDefinition, DefinitionError, did_you_mean
from app.pipelines.yamlfile import YamlList, YamlMap, describe, plain


@dataclass(frozen=True, slots=True)
class Section:
    """One mapping of `file`; `where` is the path of keys to it, for messages."""

    values: YamlMap
    file: str
    where: str = ""

    @property
    def line(self) -> int:
        """The line the mapping starts on."""
        return self.values.line

    def bad(self, key: str, message: str) -> BadDefinition:
        """An error at the line of `key`."""
        pointer = "/" + self.where.replace(".", "/") + key.replace("~", "~0").replace("/", "~1")
        return BadDefinition(message, self.file, self.values.at(key), pointer)

    def wrong(self, key: str, wanted: str) -> BadDefinition:
        """An error that says what `key` must be and what it is."""
        return self.bad(key, f"{self.where}{key} must be {wanted}, not {describe(self.values[key])}")

    def text(self, key: str, default: str = "") -> str:
        """A text; a number is taken as its digits."""
        value = self.values.get(key)
        if value is None:
            return default
        if isinstance(value, (bool, dict, list)):
            raise self.wrong(key, "a text")
        return str(value)

    def flag(self, key: str, default: bool = False) -> bool:
        """True or false."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def number(self, key: str) -> float | None:
        """A number of at least 0; Mage's files may hold it as a text."""
        value = self.values.get(key)
        if value is None or value == "":
            return None
        try:
            number = float(value) if not isinstance(value, bool) else math.nan
        except (TypeError, ValueError):
            number = math.nan
        if not 0 <= number < 1e12:
            raise self.wrong(key, "a number of at least 0")
        return number

    def integer(self, key: str) -> int | None:
        """A whole number of at least 0."""
        number = self.number(key)
        if number is not None and number != int(number):
            raise self.wrong(key, "a whole number of at least 0")
        return None if number is None else int(number)

    def choice(self, key: str, allowed: Collection[str], default: str | None = None) -> str:
        """One of a few words."""
        value = self.text(key, default or "")
        if value in allowed:
            return value
        if not value:
            raise self.bad(key, f"{self.where}{key} is missing; it is one of {', '.join(allowed)}")
        raise self.bad(
            key,
            f"{self.where}{key} must be one of {', '.join(allowed)}, not '{value}'{did_you_mean(value, allowed)}",
        )

    def texts(self, key: str) -> list[tuple[str, int]]:
        """A list of texts, each with its line."""
        items = self._list(key)
        if any(isinstance(item, (bool, dict, list)) or item is None for item in items):
            raise self.bad(key, f"{self.where}{key} must be a list of texts")
        return [(str(item), line) for item, line in zip(items, items.lines, strict=True)]

    def section(self, key: str) -> "Section":
        """A mapping; empty when absent."""
        value = self.values.get(key)
        if value is None:
            value = YamlMap()
            value.line, value.lines = self.values.at(key), {}
        if not isinstance(value, YamlMap):
            raise self.wrong(key, "a mapping")
        return Section(value, self.file, f"{self.where}{key}.")

    def sections(self, key: str, errors: list[DefinitionError] | None = None) -> list["Section"]:
        """A list of mappings. What is none goes to `errors`; without `errors` it is raised."""
        items = self._list(key)
        for item, line in zip(items, items.lines, strict=True):
            if not isinstance(item, YamlMap):
                message = f"each entry of {self.where}{key} must be a mapping, not {describe(item)}"
                bad = BadDefinition(message, self.file, line)
                if errors is None:
                    raise bad
                errors.append(bad.error)
        return [Section(item, self.file) for item in items if isinstance(item, YamlMap)]

    def mapping(self, key: str) -> dict[str, Any]:
        """A mapping as plain values."""
        return dict(plain(self.section(key).values))

    def _list(self, key: str) -> YamlList:
        value = self.values.get(key)
        if value is None:
            value = YamlList()
            value.line, value.lines = self.line, []
        if not isinstance(value, YamlList):
            raise self.wrong(key, "a list")
        return value
