"""The OpenAPI document and its page. Everything the page loads comes from this service: it works offline."""

import asyncio
import json
from base64 import b64encode
from collections.abc import Iterator
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import fastapi_offline
from fastapi import APIRouter, FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from app.auth import Access, needs
from app.routers import problems
from app.routers.door import PUBLIC_MOUNT, SECURITY_SCHEMES, TOKEN_SCHEME, Door

router = APIRouter(route_class=Door)

STATIC_URL: Final = "/docs-static"
_FILES: Final = Path(fastapi_offline.__file__).parent / "static"
#: Swagger UI sets style attributes and shows icons from data: URLs; scripts are ours or named by hash.
_POLICY: Final = (
    "default-src 'none'; script-src 'self' 'sha256-{digest}'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@router.get("/openapi.json", include_in_schema=False)
@needs(Access.PUBLIC)
async def openapi(request: Request) -> Response:
    """The OpenAPI document."""
    made = await asyncio.to_thread(request.app.state.openapi_json)
    return Response(made, media_type="application/json")


@router.get("/", include_in_schema=False)
@needs(Access.PUBLIC)
async def root() -> Response:
    """The way from the bare address to something to read."""
    return RedirectResponse("/docs")


@router.get("/docs", include_in_schema=False)
@needs(Access.PUBLIC)
async def docs(request: Request) -> Response:
    """The API, to read and to try out."""
    page: HTMLResponse = request.app.state.docs_page
    return page


def install(app: FastAPI) -> None:
    """Add the document, the page and its files; call it when every other route is in place."""
    app.include_router(router)
    app.mount(STATIC_URL, StaticFiles(directory=_FILES), name=PUBLIC_MOUNT)
    # Made when somebody asks for it: it takes longer than all else of a start, and most processes are never asked.
    app.openapi = cache(partial(_document, app))  # type: ignore[method-assign]
    app.state.openapi_json = cache(lambda: json.dumps(app.openapi()).encode())
    app.state.docs_page = _page(app.title)


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    if not app.state.guard.keyed:  # no key is set: callers may show one, nobody asks for it
        for operation in _operations(document):
            if {"bearer": []} in operation["security"]:
                operation["security"].insert(0, {})
    components = document.setdefault("components", {})
    components["securitySchemes"] = {**SECURITY_SCHEMES, **TOKEN_SCHEME}
    problem = problems.schema()
    components["schemas"] |= problem.pop("$defs", {})
    components["schemas"]["Problem"] = problem
    return document


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for methods in document["paths"].values():
        yield from methods.values()


def _page(title: str) -> HTMLResponse:
    page = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title=title,
        oauth2_redirect_url=None,
        swagger_js_url=f"{STATIC_URL}/swagger-ui-bundle.js",
        swagger_css_url=f"{STATIC_URL}/swagger-ui.css",
        swagger_favicon_url=f"{STATIC_URL}/favicon.png",
        swagger_ui_parameters={"validatorUrl": None},  # else it asks validator.swagger.io
    )
    script = bytes(page.body).decode().rpartition("<script>")[2].partition("</script>")[0]
    digest = b64encode(sha256(script.encode()).digest()).decode()
    page.headers["Content-Security-Policy"] = _POLICY.format(digest=digest)
    return page
