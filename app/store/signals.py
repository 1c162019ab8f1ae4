"""Words between the nodes of one Postgres: LISTEN and NOTIFY on a connection that does nothing else.

A word only says "look now"; what is true is in the rows, and whoever misses a word looks a second later. So words
are gathered (at most 20 messages a second leave a node), sent after the transaction they tell of, never in it: the
server commits transactions that notify one after the other.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import asyncpg

from app.errors import StoreUnavailable
from app.store.connecting import FAILURES, connect_raw
from app.store.journal import RETRY_S

log = logging.getLogger(__name__)

CHANNEL = "runwright"
#: Seconds between two messages of a node.
GAP_S = 0.05
#: A connection that has been silent for so long is asked whether it lives.
CHECK_S, CHECK_ANSWER_S = 10.0, 3.0
#: A server that cannot LISTEN is asked again so often.
DEAF_S = 60.0
#: Bytes of words in one message; Postgres takes 8,000.
MESSAGE = 7000


class Signals:
    """One node's mouth and ears. `heard` is called with words of others, `missed` when some may have been lost."""

    def __init__(
        self, url: str, node_id: str, heard: Callable[[list[str]], None], missed: Callable[[], None]
    ) -> None:
        self._url, self._node_id, self._heard, self._missed = url, node_id, heard, missed
        self._waiting: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._stopping = False
        #: whether words come in now
        self.listening = asyncio.Event()

    def say(self, *words: str) -> None:
        """Tell the other nodes soon; never waits, and forgets what nobody can be told for long."""
        self._waiting |= dict.fromkeys(words)
        self._wake.set()

    def stop(self) -> None:
        """End :meth:`serve` once what waits has been said."""
        self._stopping = True
        self._wake.set()

    async def serve(self) -> None:
        """Listen and tell until :meth:`stop`, on new connections as they are needed; the engine owns this task."""
        losses, deaf = 0, False
        while not self._stopping:
            try:
                await self._on_a_connection()
            except (asyncpg.FeatureNotSupportedError, asyncpg.InsufficientPrivilegeError) as error:
                if not deaf:
                    log.warning("nodes cannot wake each other (%s): they look once a second", error)
                deaf = True
                await asyncio.sleep(DEAF_S)
            except (StoreUnavailable, *FAILURES) as error:
                was = self.listening.is_set()
                losses = 0 if was else losses + 1
                if was:
                    log.warning("wake-ups: the connection was lost: %s", error or type(error).__name__)
            finally:
                self.listening.clear()
            if not self._stopping:
                self._waiting.clear()  # the polls will have found it
                await asyncio.sleep(RETRY_S[min(losses, len(RETRY_S) - 1)])

    async def _on_a_connection(self) -> None:
        connection = await connect_raw(self._url)
        try:
            connection.add_termination_listener(lambda _: self._wake.set())
            await connection.add_listener(CHANNEL, self._take)
            self.listening.set()
            self._missed()
            while not self._stopping or self._waiting:
                await self._turn(connection)
        finally:
            with suppress(*FAILURES):
                await connection.close(timeout=1)

    async def _turn(self, connection: Any) -> None:
        """Say what waits; when nothing does, and nothing comes, ask whether the line is dead."""
        try:
            async with asyncio.timeout(CHECK_S):
                await self._wake.wait()
        except TimeoutError:
            await connection.fetchval("SELECT 1", timeout=CHECK_ANSWER_S)
            return
        self._wake.clear()
        if connection.is_closed():
            raise asyncpg.ConnectionDoesNotExistError("connection closed by the server")
        words, self._waiting = list(self._waiting), {}
        for message in messages(self._node_id, words):
            await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, message)
            await asyncio.sleep(GAP_S)

    def _take(self, _connection: Any, _pid: int, _channel: str, payload: object) -> None:
        sender, *words = str(payload).split()
        if sender != self._node_id:
            self._heard(words)


def messages(sender: str, words: Iterable[str]) -> Iterable[str]:
    """Words packed into as few messages as they fit in.

    >>> list(messages("n1", ["admit", "run:7"])), list(messages("n1", []))
    (['n1 admit run:7'], [])
    """
    line, size = [sender], len(sender)
    for word in words:
        if size + len(word) + 1 > MESSAGE:
            yield " ".join(line)
            line, size = [sender], len(sender)
        line.append(word)
        size += len(word) + 1
    if len(line) > 1:
        yield " ".join(line)
