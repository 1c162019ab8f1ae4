"""`mage_ai.io.config`: connection settings from `io_config.yaml`, by profile."""

from __future__ import annotations

import ast
import os
import re

from . import lookup, references
from .faults import BlockFault

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_EXPRESSION = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_OTHER_TEMPLATE = re.compile(r"\{%|\{#")


class IOConfigError(BlockFault):
    """`io_config.yaml` cannot be read; the message says why, and what to do."""


class Keys(type):
    """Every upper-case name is a key of that name: services have many, and add some."""

    def __getattr__(cls, name: str) -> str:
        if not name.isupper():
            raise AttributeError(name)
        return name


class ConfigKey(metaclass=Keys):
    """Names of settings: `ConfigKey.POSTGRES_HOST` is "POSTGRES_HOST"."""


class _Loader:
    """What loaders have in common."""

    def get(self, key: Any) -> Any:
        raise NotImplementedError

    def contains(self, key: Any) -> bool:
        """Whether there is such a setting."""
        return self.get(key) is not None

    __contains__ = contains

    def __getitem__(self, key: Any) -> Any:
        return self.get(key)


class EnvironmentVariableLoader(_Loader):
    """Settings from the environment."""

    def get(self, key: Any) -> Any:
        """The variable; None when it is not set."""
        return os.environ.get(_name(key))


class ConfigFileLoader(_Loader):
    """Settings of one profile of `io_config.yaml`, or of the mapping `config`."""

    def __init__(self, filepath: Any = None, profile: str = "default", config: Any = None) -> None:
        from . import shim

        self.filepath = os.fspath(filepath) if filepath else os.path.join(shim.repo_path(), "io_config.yaml")
        self.profile = profile
        self.version: Any = None
        self.config: dict[str, Any] = dict(config) if config is not None else self._read()

    def get(self, key: Any) -> Any:
        """The setting; None when there is none of that name."""
        return self.config.get(_name(key))

    def _read(self) -> dict[str, Any]:
        try:
            with open(self.filepath, encoding="utf-8") as stream:
                text = stream.read()
        except OSError as error:
            raise IOConfigError("cannot read %s: %s" % (self.filepath, error.strerror)) from error
        found = _yaml(render(text), self.filepath)
        if not isinstance(found, dict) or not isinstance(found.get(self.profile), dict):
            profiles = sorted(name for name, value in dict(found or {}).items() if isinstance(value, dict))
            told = (self.filepath, self.profile, ", ".join(profiles) or "none")
            raise IOConfigError("%s has no profile '%s'; it has: %s" % told)
        self.version = found.get("version")
        return dict(found[self.profile])


def _name(key: Any) -> str:
    return str(getattr(key, "value", key))


def render(text: str) -> str:
    """The text with `env_var`, `mage_secret_var` and `json_value` filled in; jinja2 is needed for anything else.

    Raises IOConfigError, or ServiceError for a secret that is not there.
    """
    # A comment is no template: its secrets may not exist.
    text = "\n".join("" if line.lstrip().startswith("#") else line for line in text.split("\n"))
    expressions = [found.group(1).strip() for found in _EXPRESSION.finditer(text)]
    if not _OTHER_TEMPLATE.search(text) and all(_is_simple(expression) for expression in expressions):
        return _EXPRESSION.sub(lambda found: _text(_evaluate(_parse(found.group(1)))), text)
    try:
        from jinja2 import StrictUndefined
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError:
        raise IOConfigError(
            "io_config.yaml holds more than env_var(), mage_secret_var() and json_value():"
            " install jinja2 into the interpreter of the project"
        ) from None
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    return str(environment.from_string(text).render(**_FUNCTIONS))


def _parse(expression: str) -> ast.AST:
    return ast.parse(expression.strip(), mode="eval").body


def _is_simple(expression: str) -> bool:
    try:
        return _only_calls(_parse(expression))
    except (SyntaxError, ValueError):
        return False


def _only_calls(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return True
    if not isinstance(node, ast.Call) or node.keywords:
        return False
    known = isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS
    return known and all(_only_calls(argument) for argument in node.args)


def _evaluate(node: Any) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    return _FUNCTIONS[node.func.id](*[_evaluate(argument) for argument in node.args])


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _env_var(name: str, default: Any = None) -> Any:
    return os.environ.get(name, default)


def _json_value(text: str, key: str) -> str:
    return references.part(text, key)


def _elsewhere(*args: Any) -> Any:
    raise IOConfigError(
        "aws_secret_var() and azure_secret_var() are not supported: use env_var or mage_secret_var"
    )


_FUNCTIONS: dict[str, Any] = {
    "env_var": _env_var,
    "mage_secret_var": lambda name: lookup.secret(name),
    "json_value": _json_value,
    "aws_secret_var": _elsewhere,
    "azure_secret_var": _elsewhere,
}


def _yaml(text: str, path: str) -> Any:
    try:
        import yaml
    except ImportError:
        raise IOConfigError(
            "io_config.yaml needs PyYAML in the interpreter of the project: install pyyaml"
        ) from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = ":%d" % (mark.line + 1) if mark else ""
        # Not the whole message: it quotes the line, secrets and all.
        raise IOConfigError(
            "%s%s is not valid YAML: %s" % (path, line, getattr(error, "problem", ""))
        ) from None


NAMES = {
    "ConfigFileLoader": ConfigFileLoader,
    "ConfigKey": ConfigKey,
    "EnvironmentVariableLoader": EnvironmentVariableLoader,
}
