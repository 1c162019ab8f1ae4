"""The Python client of Runwright: the same as `app.client`, under the name of the distribution."""

from app.client import *  # noqa: F403
from app.client import __all__ as __all__
