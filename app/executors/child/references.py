"""Secrets in the variables of a project are references, `<<secret NAME>>`, until a block gets them.

So a value is never a part of a definition, a row or an answer. `<<secret NAME key>>` is one key of a secret that
holds a JSON object.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

#: under this name the service tells which variables hold references
KEY = "__secrets__"
_FORM = re.compile(r"<<secret ([A-Za-z0-9_.-]+)(?: ([^<>]+))?>>")


def has(value: Any) -> bool:
    """Whether there is a reference in a value, however deep.

    >>> has({"dsn": ["postgres://me:<<secret pw>>@db"]}), has("<<secret>>")
    (True, False)
    """
    if isinstance(value, str):
        return _FORM.search(value) is not None
    if isinstance(value, dict):
        return any(has(item) for item in value.values())
    return isinstance(value, (list, tuple)) and any(has(item) for item in value)


def resolve(value: Any, secret: Callable[[str], str]) -> Any:
    """The value with each reference replaced by what `secret(name)` says.

    >>> resolve({"dsn": ["postgres://me:<<secret pw>>@db"]}, str.upper)
    {'dsn': ['postgres://me:PW@db']}
    """
    if isinstance(value, str):
        return _FORM.sub(lambda found: part(secret(found.group(1)), found.group(2)), value)
    if isinstance(value, dict):
        return {name: resolve(item, secret) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [resolve(item, secret) for item in value]
    return value


def part(value: str, key: str | None) -> str:
    """One key of a secret that is a JSON object; all of it without a key. Raises ValueError."""
    if key is None:
        return value
    import json

    try:
        return str(json.loads(value)[key])
    except (ValueError, KeyError, TypeError):
        # Without the cause: it would show the value.
        raise ValueError("json_value: the secret is no JSON object with the key '%s'" % key) from None
