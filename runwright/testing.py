"""Tests of pipelines and blocks: the same as `app.testing`, under the name of the distribution."""

from app.testing import *  # noqa: F403
from app.testing import __all__ as __all__
