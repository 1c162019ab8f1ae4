"""Bind, Host, Origin, key and declared access, without an engine."""

from pathlib import Path

import pytest
from fastapi import APIRouter, FastAPI
from pydantic import SecretStr
from starlette.staticfiles import StaticFiles

from app.auth import Access, Guard, WrongHost, needs, require_safe_bind
from app.errors import Forbidden, StartRefused, Unauthorized
from app.routers.door import Door, check_routes
from app.settings import Settings

KEY = "k" * 32


def settings(**given: object) -> Settings:
    return Settings(project=Path("/nowhere"), **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", ""])
def test_an_open_bind_without_a_key_is_refused(host: str) -> None:
    with pytest.raises(StartRefused, match="RUNWRIGHT_ADMIN_KEY"):
        require_safe_bind(settings(host=host))
    require_safe_bind(settings(host=host, admin_key=SecretStr(KEY)))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "0.0.0.0"])
def test_a_short_key_is_refused_on_every_bind(host: str) -> None:
    with pytest.raises(StartRefused, match="at least 32"):
        require_safe_bind(settings(host=host, admin_key=SecretStr(KEY[1:])))


@pytest.mark.parametrize(
    ("host", "server", "good"),
    [
        (b"localhost", None, True),
        (b"LOCALHOST:8000", None, True),
        (b"127.0.0.1:1", None, True),
        (b"[::1]:8000", None, True),
        (b"runs.example.org", None, True),
        (b"10.0.0.7:8000", "10.0.0.7", True),
        (b"10.0.0.7:8000", "10.0.0.8", False),
        (b"evil.example", "evil.example", False),
        (b"localhost.evil.example", None, False),
        (b"evil.example:localhost", None, False),
        (b"localhost@evil.example", None, False),
        (b"", None, False),
        (b"\xff", None, False),
    ],
)
def test_only_known_host_names_are_answered(host: bytes, server: str | None, good: bool) -> None:
    guard = Guard(settings(allowed_hosts=("Runs.example.org",)))
    if good:
        guard.check_host([(b"host", host)], server)
    else:
        with pytest.raises(WrongHost):
            guard.check_host([(b"host", host)], server)


@pytest.mark.parametrize("headers", [[], [(b"host", b"localhost"), (b"host", b"localhost")]])
def test_there_is_exactly_one_host(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(WrongHost):
        Guard(settings()).check_host(headers, None)


@pytest.mark.parametrize(
    ("origin", "good"),
    [
        (None, True),
        (b"http://localhost:8000", True),
        (b"https://localhost:8000", True),
        (b"http://localhost:3000", False),
        (b"http://localhost", False),
        (b"null", False),
        (b"https://evil.example", False),
        (b"http://localhost:8000.evil.example", False),
    ],
)
def test_a_page_of_another_origin_changes_nothing(origin: bytes | None, good: bool) -> None:
    headers = [(b"host", b"localhost:8000"), *([(b"origin", origin)] if origin else [])]
    guard = Guard(settings())
    guard.check_origin(headers, "GET")
    if good:
        guard.check_origin(headers, "POST")
    else:
        with pytest.raises(Forbidden):
            guard.check_origin(headers, "POST")


@pytest.mark.parametrize(
    ("header", "good"),
    [
        ((b"authorization", b"Bearer " + KEY.encode()), True),
        ((b"authorization", b"bearer " + KEY.encode()), True),
        ((b"x-api-key", KEY.encode()), True),
        ((b"authorization", b"Basic " + KEY.encode()), False),
        ((b"authorization", b"Bearer"), False),
        ((b"authorization", b"Bearer " + KEY.encode()[1:]), False),
        ((b"x-api-key", b"\xff"), False),
        ((b"cookie", KEY.encode()), False),
    ],
)
def test_the_key_opens(header: tuple[bytes, bytes], good: bool) -> None:
    guard = Guard(settings(admin_key=SecretStr(KEY)))
    guard.check_key([header], Access.PUBLIC)
    if good:
        guard.check_key([header], Access.ADMIN)
    else:
        with pytest.raises(Unauthorized):
            guard.check_key([header], Access.VIEWER)


def test_a_route_without_declared_access_cannot_be_made() -> None:
    async def handler() -> None: ...

    with pytest.raises(StartRefused, match="/forgotten"):
        APIRouter(route_class=Door).add_api_route("/forgotten", handler)


def test_what_went_in_by_another_way_is_found() -> None:
    @needs(Access.PUBLIC)
    async def handler() -> None: ...

    def plain(app: FastAPI) -> None:
        app.add_api_route("/x", handler)

    def mount(app: FastAPI) -> None:
        app.mount("/x", StaticFiles(directory="."))

    def socket(app: FastAPI) -> None:
        app.add_api_websocket_route("/x", handler)

    def nested(app: FastAPI) -> None:
        router = APIRouter()
        router.add_api_route("/x", handler)
        app.include_router(router, prefix="/y")

    for add in (plain, mount, socket, nested):
        app = FastAPI(openapi_url=None)
        check_routes(app)
        add(app)
        with pytest.raises(StartRefused, match="/x"):
            check_routes(app)
