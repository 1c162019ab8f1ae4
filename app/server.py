"""The service as a process: its socket, its signals, its drain, and `service.json` for those who look for it.

uvicorn waits for open streams for ever and knows no drain, so only its HTTP side is used. First SIGTERM or
SIGINT: not ready, no new work, running blocks get `drain_s`, the rest is handed over; HTTP answers all the
while. Second: running blocks are killed at once. Third: the process ends, and its warden kills the workers.
"""

import asyncio
import contextlib
import errno
import gc
import json
import logging
import os
import signal
import socket
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from secrets import token_hex
from typing import Final, NoReturn

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app import __version__
from app.auth import require_safe_bind
from app.errors import RunwrightError, StartRefused
from app.main import create_app, lives_of
from app.models.states import ScheduleStatus
from app.routers import problems
from app.scheduler.engine import Engine
from app.scheduler.lives import living
from app.settings import Settings
from app.store import about, schedules

log = logging.getLogger(__name__)

#: How long a connection with an answer under way may go on once the engine has stopped.
_CLOSE_S: Final = 1
EXIT_FORCED: Final = 75
#: Bytes of a request's head (line and headers), give or take what the first read brings.
_HEAD_LIMIT: Final = 64 * 1024
#: Triggers counted at the start.
_COUNTED: Final = 1000


class PortTaken(StartRefused):
    """The address cannot be listened on."""

    code, title = "port_taken", "Address not available"


def serve(settings: Settings) -> int:
    """Serve until a signal comes; the process's exit code. Raises StartRefused, PortTaken among them."""
    require_safe_bind(settings)
    with listen(settings.host, settings.port) as listener:
        app = create_app(settings)
        config = uvicorn.Config(
            app,
            lifespan="off",  # the engine starts and stops here: its refusals must reach the caller
            http=_Protocol,
            ws="none",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=_CLOSE_S,
        )
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            return runner.run(_Service(app, config, listener).run())


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises PortTaken with the way out."""
    try:
        family, kind, protocol, _, address = _resolve(host, port)
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        _refuse(host, port, error)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)  # now, not later: until then a second service could bind here as well
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        _refuse(host, port, error)
    return listener


def _resolve(host: str, port: int) -> tuple[int, int, int, str, tuple[object, ...]]:
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return min(found, key=lambda entry: entry[0] != socket.AF_INET)  # "localhost" is 127.0.0.1 first


def _refuse(host: str, port: int, error: OSError) -> NoReturn:
    if error.errno == errno.EADDRINUSE:
        raise PortTaken(
            f"Port {port} on {host} is in use.",
            hint=f"Choose another: PORT={port + 1} make start, or runwright start --port {port + 1}",
        )
    raise PortTaken(f"Cannot listen on {host}, port {port}: {error.strerror or error}.")


class _HeadTooLarge(RunwrightError):
    code, status, title = "request_head_too_large", 431, "Request head too large"


class _NoHttp(RunwrightError):
    code, status, title = "malformed_request", 400, "Malformed request"


class _Protocol(HttpToolsProtocol):
    """uvicorn's HTTP, but a request's head has an end, and what is no HTTP gets a problem as well."""

    _in_head = False
    _head = 0

    def on_message_begin(self) -> None:
        """A request begins."""
        self._in_head, self._head = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head of a request is complete."""
        self._in_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Bytes came. The parser collects a head in memory, however long: one sender could fill it."""
        before = self._in_head
        super().data_received(data)
        if before and self._in_head and not self.transport.is_closing():
            self._head += len(data)
            if self._head > _HEAD_LIMIT:
                self._refuse(_HeadTooLarge(f"The head of the request is larger than {_HEAD_LIMIT} bytes."))

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP."""
        self._refuse(_NoHttp(msg))

    def _refuse(self, error: RunwrightError) -> None:
        scope = {problems.REQUEST_ID: token_hex(8)}
        answer = problems.respond(scope, error, headers={"Connection": "close"})
        head = [f"HTTP/1.1 {error.status} {error.title}".encode(), *map(b": ".join, answer.raw_headers)]
        self.transport.write(b"\r\n".join([*head, b"", bytes(answer.body)]))
        self.transport.close()


class _Http(uvicorn.Server):
    """uvicorn without its signal handling."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave the signals to the service."""
        yield


class _Service:
    def __init__(self, app: FastAPI, config: uvicorn.Config, listener: socket.socket) -> None:
        self._settings: Settings = app.state.settings
        self._engine: Engine = app.state.engine  # the first life
        self._lives = lives_of(app)
        self._http = _Http(config)
        self._listener = listener
        self._asked = asyncio.Event()
        self._hurried = asyncio.Event()

    async def run(self) -> int:
        """Start, serve, drain, stop. HTTP goes on until the engine has stopped."""
        self._handle_signals()
        async with asyncio.TaskGroup() as group:
            hurry = group.create_task(self._hurry(), name="hurry")
            async with living(self._lives):
                serving = group.create_task(self._http.serve([self._listener]), name="http")
                with _service_file(self._settings, self._url):
                    gc.collect()
                    gc.freeze()  # what start-up made stays: the collector need not look at it again
                    await self._announce()
                    await self._asked.wait()
            self._http.should_exit = True
            await serving
            hurry.cancel()
        log.info("stopped")
        return 0

    async def _hurry(self) -> None:
        """A second signal cuts the drain short: running blocks are stopped, their runs handed over."""
        await self._hurried.wait()
        self._lives.hurry()

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)

    def _signalled(self) -> None:
        if not self._asked.is_set():
            log.info(
                "stopping: running blocks have %g s; a second signal stops them now", self._settings.drain_s
            )
            self._asked.set()
        elif not self._hurried.is_set():
            log.warning("stopping now")
            self._hurried.set()
        else:
            os._exit(EXIT_FORCED)

    @property
    def _url(self) -> str:
        host, port = self._listener.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def _announce(self) -> None:
        settings = self._settings
        log.info("Runwright %s serves %s (API page at /docs)", __version__, self._url)
        log.info("project  %s", settings.project)
        log.info("database %s", about.shown(settings.store_url))
        log.info("triggers %s", await _triggers(self._engine))
        if settings.paused:
            log.info("paused   no trigger fires here until a start without --paused; what is launched runs")
        elif self._engine.first_start:
            log.info(
                "first    start of this project: from now on its active triggers run here (not: --paused)"
            )


async def _triggers(engine: Engine) -> str:
    """How many triggers are active, and which comes next."""
    page = await engine.db.read(schedules.page, status=[ScheduleStatus.ACTIVE], limit=_COUNTED)
    good = [row for row in page if row.error is None]
    words = f"{len(good)}{'+' if len(page) == _COUNTED else ''} active"
    if len(good) < len(page):
        words += f", {len(page) - len(good)} with an error (runwright validate tells which)"
    coming = [(row.next_fire_at, row) for row in good if row.next_fire_at is not None]
    if not coming:
        return words
    at, first = min(coming, key=lambda pair: pair[0])
    return f"{words}, next: {first.pipeline_uuid}/{first.name} at {at:%Y-%m-%d %H:%M:%S} UTC"


@contextmanager
def _service_file(settings: Settings, url: str) -> Iterator[None]:
    """`service.json` in the home folder while the service runs: where it is, for the command line."""
    path = settings.home / "service.json"
    partial = path.with_suffix(".json.new")
    partial.write_text(json.dumps({"url": url, "pid": os.getpid(), "version": __version__}) + "\n")
    partial.replace(path)
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            path.unlink()
