"""For scripts that know nothing of clients: Mage's function, on the service that the environment names."""

import inspect
import os
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from app.client.api import Api, Client
from app.client.flow import call

P = ParamSpec("P")
T = TypeVar("T")


def set_default_server(url: str, key: str | None = None) -> None:
    """The service that clients of this process, and of those it starts, talk to when they are not told."""
    os.environ["RUNWRIGHT_URL"] = url
    if key:
        os.environ["RUNWRIGHT_API_KEY"] = key


def _alone(method: call[P, T]) -> Callable[P, T]:
    """A method of the client as a function that has a client of its own."""

    @wraps(method.flow)
    def function(*args: P.args, **kwargs: P.kwargs) -> T:
        with Client() as client:
            return client.perform(method.flow(client, *args, **kwargs))

    # The method's own signature names a client.
    signature = inspect.signature(method.flow)
    function.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])  # type: ignore[attr-defined]
    return function


trigger_pipeline = _alone(Api.trigger_pipeline)
