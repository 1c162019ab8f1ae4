"""A load client that costs next to nothing: one keep-alive connection, one request at a time."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any, Self

API = "/api/v1"


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and body of a response."""

    status: int
    body: bytes

    def json(self) -> Any:
        """The parsed body; fails loudly for an answer that is no success."""
        if self.status >= 300:
            raise RuntimeError(f"{self.status}: {self.body.decode()}")
        return json.loads(self.body)


class Connection(asyncio.Protocol):
    """An HTTP/1.1 connection. Use it within `async with await connect(port)`."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._answer: asyncio.Future[Answer] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, rest = self._received.partition(b"\r\n\r\n")
        if not found or self._answer is None:
            return
        _, _, length = head.lower().partition(b"\r\ncontent-length:")
        size = int(length.partition(b"\r\n")[0])
        if len(rest) >= size:
            self._received.clear()
            self._answer.set_result(Answer(int(head[9:12]), bytes(rest[:size])))

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionError("the service closed the connection"))

    async def ask(self, method: str, path: str, *headers: str) -> Answer:
        """Send a request without a body; its response."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        lines = (f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Length: 0", *headers, "", "")
        self._transport.write("\r\n".join(lines).encode())
        return await self._answer

    async def trigger(self, pipeline: str, *headers: str) -> dict[str, Any]:
        """Start a run of a pipeline; the run as it was answered."""
        run = (await self.ask("POST", f"{API}/pipelines/{pipeline}/pipeline_runs", *headers)).json()
        assert isinstance(run, dict)
        return run

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._transport is not None:
            self._transport.close()


async def connect(port: int) -> Connection:
    """A connection to the service on this machine."""
    _, protocol = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
    return protocol
