"""Server-sent events (WHATWG HTML §9.2.6), from bytes as they come in."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `id` is that of the newest event that had one."""

    name: str
    data: str
    id: str


class Parser:
    """Feed it bytes, take events. Lines end with CR, LF or both and nothing else, whatever the data contains.

    >>> parser = Parser()
    >>> list(parser.feed(b"id: 7\\nda")), list(parser.feed(b"ta: a\\n: beat\\n\\nevent: end\\r\\n\\r"))
    ([], [Event(name='message', data='a', id='7')])
    >>> list(parser.feed(b"\\n"))
    [Event(name='end', data='', id='7')]
    """

    def __init__(self) -> None:
        self._rest = b""
        self._name, self._data, self._id = "", list[str](), ""

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that are complete now."""
        text = self._rest + chunk
        held = b"\r" if text.endswith(b"\r") else b""  # it may be half of CR LF
        text = text.removesuffix(b"\r").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = text.split(b"\n")
        self._rest = rest + held
        return [event for line in lines if (event := self._line(line.decode("utf-8", "replace")))]

    def _line(self, line: str) -> Event | None:
        if not line:
            return self._end()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "data":
                self._data.append(value)
            case "event":
                self._name = value
            case "id" if "\0" not in value:
                self._id = value
        return None

    def _end(self) -> Event | None:
        name, data = self._name, self._data
        self._name, self._data = "", []
        if not (name or data):
            return None
        return Event(name or "message", "\n".join(data), self._id)
