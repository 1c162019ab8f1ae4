"""Who may come in: the bind, the Host name, the Origin, the key, and the access that each route declares.

Deny by default. A route says what it needs with :func:`needs`; the public ones say so too (`Access.PUBLIC`),
as route objects and never by the text of a path. Nothing here reads a body or the database.
"""

from collections.abc import Callable, Iterable
from enum import IntEnum
from hmac import compare_digest
from ipaddress import ip_address
from typing import Final, TypeVar

from app.errors import Forbidden, RunwrightError, StartRefused, Unauthorized
from app.settings import Settings

#: Raw ASGI headers: lower-case names.
Headers = Iterable[tuple[bytes, bytes]]
Endpoint = TypeVar("Endpoint", bound=Callable[..., object])

MIN_KEY_LENGTH: Final = 32
LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_DECLARED: Final = "__runwright_access__"


class Access(IntEnum):
    """What a route needs. Each level may do what the lower ones may.

    TOKEN: the route itself judges a credential in the request, such as a trigger's token; no key opens it.
    """

    TOKEN = -1
    PUBLIC = 0
    VIEWER = 1
    OPERATOR = 2
    EDITOR = 3
    ADMIN = 4


class WrongHost(RunwrightError):
    """The request is meant for another host name (DNS rebinding, a misrouted proxy)."""

    code, status, title = "wrong_host", 421, "Misdirected request"


def needs(access: Access) -> Callable[[Endpoint], Endpoint]:
    """Declare the access of an endpoint; a route without a declaration refuses to be made."""

    def declare(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _DECLARED, access)
        return endpoint

    return declare


def access_of(endpoint: object) -> Access | None:
    """What `endpoint` declared, or None."""
    found = getattr(endpoint, _DECLARED, None)
    return found if isinstance(found, Access) else None


def is_loopback(host: str) -> bool:
    """Whether a bind to `host` is reachable from this machine only.

    >>> [is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "", "example.org")]
    [True, True, True, False, False, False]
    """
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def require_safe_bind(settings: Settings) -> None:
    """Refuse to serve the network without an admin key, or with one that can be guessed."""
    key = settings.admin_key.get_secret_value() if settings.admin_key else None
    if key is not None and len(key) < MIN_KEY_LENGTH:
        raise StartRefused(
            f"RUNWRIGHT_ADMIN_KEY has {len(key)} characters; it needs at least {MIN_KEY_LENGTH}.",
            hint=_KEY_HINT,
        )
    if key is None and not is_loopback(settings.host):
        raise StartRefused(
            f"Serving on '{settings.host}' is open to the network and needs RUNWRIGHT_ADMIN_KEY "
            f"(or RUNWRIGHT_ADMIN_KEY_FILE) with at least {MIN_KEY_LENGTH} characters.",
            hint=f"{_KEY_HINT} Or serve this machine only: --host 127.0.0.1",
        )


_KEY_HINT: Final = (
    'Make one: export RUNWRIGHT_ADMIN_KEY="$(head -c 32 /dev/urandom | base64)" and give it to your callers.'
)


class Guard:
    """Judges requests for one set of settings."""

    def __init__(self, settings: Settings) -> None:
        names = {name.lower() for name in settings.allowed_hosts}
        if settings.host and not _is_any_address(settings.host):
            names.add(settings.host.lower())
        self._hosts = LOOPBACK_NAMES | names
        self._key = settings.admin_key.get_secret_value().encode() if settings.admin_key else None

    @property
    def keyed(self) -> bool:
        """Whether callers must show a key."""
        return self._key is not None

    def check_host(self, headers: Headers, server: str | None) -> None:
        """Refuse a request that names another host.

        The address the connection came in on is as good as a name: rebinding needs a domain name, and probes
        ask by address.
        """
        given = [value for name, value in headers if name == b"host"]
        if len(given) != 1:
            raise WrongHost("The request must have exactly one Host header.")
        name = host_name(given[0].decode("latin-1"))
        if name in self._hosts or (name == server and _is_address(name)):
            return
        raise WrongHost(
            "This service does not answer for the host name of the request.",
            hint="Name it in RUNWRIGHT_ALLOWED_HOSTS (comma-separated) if it is yours.",
        )

    def check_origin(self, headers: Headers, method: str) -> None:
        """Refuse a change that a page of another origin asks for (a browser always sends Origin with it)."""
        if method in SAFE_METHODS:
            return
        host = _first(headers, b"host").lower()
        origin = _first(headers, b"origin")
        if origin and origin.lower() not in (b"http://" + host, b"https://" + host):
            raise Forbidden(
                "A page of another origin may not change anything here.",
                hint="Call the API from a program, or from a page that this service serves.",
            )

    def check_key(self, headers: Headers, access: Access) -> None:
        """Refuse a caller without the key where one is set and the route is not public."""
        if access in (Access.PUBLIC, Access.TOKEN) or self._key is None:
            return
        shown = presented_key(headers)
        if shown is None:
            raise Unauthorized("This service needs an API key.", hint=_HEADER_HINT)
        if not compare_digest(shown, self._key):
            raise Unauthorized("The API key is not valid.", hint=_HEADER_HINT)


_HEADER_HINT: Final = "Send it as 'Authorization: Bearer <key>' or 'X-API-Key: <key>'."


def presented_key(headers: Headers) -> bytes | None:
    """The key that a request shows.

    >>> presented_key([(b"authorization", b"Bearer k")]), presented_key([(b"x-api-key", b"k")])
    (b'k', b'k')
    >>> presented_key([(b"authorization", b"Basic azpr")]) is None
    True
    """
    return bearer(headers) or _first(headers, b"x-api-key") or None


def bearer(headers: Headers) -> bytes | None:
    """The token of an Authorization header of that scheme (RFC 6750).

    >>> bearer([(b"authorization", b"bearer  t")]), bearer([(b"authorization", b"Bearer")])
    (b't', None)
    """
    scheme, _, token = _first(headers, b"authorization").partition(b" ")
    return (token.strip() or None) if scheme.lower() == b"bearer" else None


def host_name(value: str) -> str:
    """The name in a Host header, without port and brackets, lower case.

    >>> [host_name(value) for value in ("LOCALHOST:8000", "[::1]:80", "a.example", "::1")]
    ['localhost', '::1', 'a.example', '::1']
    """
    value = value.strip().lower()
    if value.startswith("["):
        return value[1:].partition("]")[0]
    return value if value.count(":") > 1 else value.partition(":")[0]


def _first(headers: Headers, wanted: bytes) -> bytes:
    return next((value for name, value in headers if name == wanted), b"")


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _is_any_address(host: str) -> bool:
    return _is_address(host) and ip_address(host).is_unspecified
