"""Jinja as Mage has it in the project's `metadata.yaml`: `env_var`, `mage_secret_var`, `json_value`, filters, `if`.

The person who writes this file may run any code in a block, but a template is rendered inside the service, so it
gets no means to hurt it: sandboxed, no attribute access, no loops, no assignments, no operator that
multiplies text. What is left cannot produce much more than it is given, and the output is capped.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Environment, StrictUndefined, TemplateError, TemplateSyntaxError, Undefined, nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from app.pipelines.problems import BadDefinition

MAX_OUTPUT = 64 * 1024

_STATEMENTS = (nodes.Template, nodes.Output, nodes.TemplateData, nodes.If)
_EXPRESSIONS = (
    *(nodes.Const, nodes.TemplateData, nodes.Name, nodes.Call, nodes.Filter, nodes.Test, nodes.Keyword),
    *(nodes.And, nodes.Or, nodes.Not, nodes.Compare, nodes.Operand, nodes.CondExpr, nodes.Getitem),
    *(
        nodes.Concat,
        nodes.Add,
        nodes.Sub,
        nodes.Mul,
        nodes.Div,
        nodes.FloorDiv,
        nodes.Mod,
        nodes.Neg,
        nodes.Pos,
    ),
    *(nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair),
)
_FILTERS = (
    "default",
    "d",
    "lower",
    "upper",
    "trim",
    "int",
    "float",
    "string",
    "length",
    "first",
    "last",
    "tojson",
)
_KNOWN = ("env_var", "json_value", "mage_secret_var")
_ELSEWHERE = ("aws_secret_var", "azure_secret_var", "variables")
_INSTEAD = "use env_var() or mage_secret_var()"
_SECRET = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}", re.ASCII)
_REFERENCE = re.compile(r"<<secret [^<>]*>>")


def refers(value: Any) -> bool:
    """Whether there is a reference to a secret in a value, however deep.

    >>> refers({"url": ["https://<<secret host>>/"]}), refers("<<secret")
    (True, False)
    """
    if isinstance(value, str):
        return _REFERENCE.search(value) is not None
    if isinstance(value, Mapping):
        return any(map(refers, value.values()))
    return isinstance(value, list) and any(map(refers, value))


class _Reference(str):
    """A secret by its name: `<<secret NAME>>`. Its value is nowhere in the service's files, rows and answers."""


class _Sandbox(ImmutableSandboxedEnvironment):
    """Arithmetic on numbers only; text may be added, never multiplied or formatted."""

    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "+" and isinstance(left, str) and isinstance(right, str):
            return left + right
        if operator == "**" or not (isinstance(left, (int, float)) and isinstance(right, (int, float))):
            raise SecurityError(f"the operator '{operator}' is not allowed here")
        return super().call_binop(context, operator, left, right)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return False


def render(source: str, file: str, environ: Mapping[str, str], warn: Callable[[str], None]) -> str:
    """The text with its expressions filled in. BadDefinition names the line of what cannot be rendered.

    An environment variable that is not set is empty text, and `warn` is told; its name may not begin with
    RUNWRIGHT_, which is where the service keeps its own keys.
    """
    if "{{" not in source and "{%" not in source and "{#" not in source:
        return source
    environment = _environment(environ, warn)
    try:
        tree = environment.parse(source)
        _check(tree, file)
        output = environment.from_string(tree).render()
    except TemplateSyntaxError as error:
        raise BadDefinition(f"not a valid template: {error.message}", file, error.lineno) from error
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise BadDefinition(f"template: {_reason(error)}", file, _line_of(error)) from error
    if len(output) > MAX_OUTPUT:
        raise BadDefinition(f"the rendered text is longer than {MAX_OUTPUT // 1024} KiB", file)
    return output


def _environment(environ: Mapping[str, str], warn: Callable[[str], None]) -> Environment:
    def env_var(name: str, default: str | None = None) -> Any:
        value = None if str(name).startswith("RUNWRIGHT_") else environ.get(str(name), default)
        if value is None:
            warn(f"the environment variable '{name}' is not set; it is empty here")
            return Undefined(name=str(name))
        return value

    def mage_secret_var(name: str) -> _Reference:
        if not _SECRET.fullmatch(str(name)):
            raise ValueError(f"'{name}' is not the name of a secret")
        return _Reference(f"<<secret {name}>>")

    def json_value(text: str, key: str) -> Any:
        if isinstance(text, _Reference):  # its value is not known here: whoever puts it in takes the key out
            if re.search("[<>]", str(key)):
                raise ValueError("a key of a secret may not hold '<' or '>'")
            return _Reference(f"{text.removesuffix('>>')} {key}>>")
        return json.loads(str(text))[key]

    environment = _Sandbox(undefined=StrictUndefined, keep_trailing_newline=True)
    environment.globals = {"env_var": env_var, "json_value": json_value, "mage_secret_var": mage_secret_var}
    environment.filters = {name: environment.filters[name] for name in _FILTERS}
    return environment


def _check(tree: nodes.Template, file: str) -> None:
    for node in tree.find_all(nodes.Node):
        name = type(node).__name__.lower()
        if not isinstance(node, _STATEMENTS + _EXPRESSIONS):
            raise BadDefinition(f"template: '{name}' is not allowed here", file, node.lineno)
        if isinstance(node, nodes.Call):
            called = node.node.name if isinstance(node.node, nodes.Name) else "a method"
            if called in _ELSEWHERE:
                raise BadDefinition(f"template: {called}() is not supported; {_INSTEAD}", file, node.lineno)
            if called not in _KNOWN:
                raise BadDefinition(f"template: {called} cannot be called here", file, node.lineno)


def _reason(error: Exception) -> str:
    text = f"{error}" if isinstance(error, TemplateError) else f"{type(error).__name__}: {error}"
    return text or type(error).__name__


def _line_of(error: BaseException) -> int | None:
    """The template's line: jinja rewrites the traceback so that its last frame in '<template>' says it."""
    line, frame = None, error.__traceback__
    while frame:
        if frame.tb_frame.f_code.co_filename == "<template>":
            line = frame.tb_lineno
        frame = frame.tb_next
    return line
