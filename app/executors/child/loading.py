"""A block's file: read, compiled, executed in a fresh namespace (Mage: `Block.execute_block_function`)."""

from __future__ import annotations

import os
import sys

from . import faults
from .decorators import Recorder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any

#: what a hook's file finds set besides
HOOKS = ("condition", "callback", "on_success", "on_failure")
#: compiled files by path; the hash says whether the entry still holds
_compiled: dict[str, tuple[str, CodeType]] = {}


def _find_sha256() -> Any:
    """The interpreter's own SHA-256 where it has one: hashlib loads OpenSSL, which costs a worker 3 MiB."""
    for name in ("_sha2", "_sha256"):
        try:
            return __import__(name).sha256
        except ImportError:
            continue
    return __import__("hashlib").sha256


_sha256 = _find_sha256()


class BlockFile:
    """The text of a block as it is now, and its hash."""

    def __init__(self, project: str, file: str) -> None:
        self.project = project
        self.file = file
        self.path = os.path.join(project, file)
        try:
            with open(self.path, "rb", buffering=0) as stream:
                self.source = stream.readall()
        except OSError as error:
            raise faults.BlockFault("cannot read %s: %s" % (file, error.strerror)) from error
        self.hash = str(_sha256(self.source).hexdigest())

    def compile(self) -> CodeType:
        """The file's code; compiled once per content. Raises SyntaxError or ValueError as Python does."""
        known = _compiled.get(self.path)
        if known is not None and known[0] == self.hash:
            return known[1]
        code = compile(self.source, self.path, "exec", dont_inherit=True)
        _compiled[self.path] = (self.hash, code)
        return code


class Loaded:
    """A block whose file has been executed: its functions by decorator, its module and namespace."""

    def __init__(self, file: BlockFile, uuid: str, kind: str, inputs: list[tuple[str, Any]]) -> None:
        self.file = file
        self.kind = kind
        self.module = type(sys)("_runwright_block_" + uuid)
        self.module.__file__ = file.path
        self.namespace = self.module.__dict__
        self.recorder = Recorder(self.namespace)
        self._preset = _preset(inputs)
        self.namespace.update(self._preset)
        names = (kind, "test", "preprocesser")
        for name in names + (HOOKS if kind in HOOKS else ()):
            self.namespace[name] = self.recorder.decorator(name)
        self._execute(file.compile())

    def _execute(self, code: CodeType) -> None:
        # Registered while it runs: dataclasses and typing look a class's module up by its name.
        sys.modules[self.module.__name__] = self.module
        outer, Recorder.current = Recorder.current, self.recorder
        try:
            exec(code, self.namespace)
        finally:
            Recorder.current = outer

    @property
    def function(self) -> Any:
        """The first function under the decorator of the block's type."""
        found = self.recorder.found.get(self.kind)
        if not found:
            raise faults.NoFunction("no function in %s is decorated with @%s" % (self.file.file, self.kind))
        return found[0]

    def functions(self, name: str) -> list[Any]:
        """All functions under another decorator."""
        return self.recorder.found.get(name, [])

    def unregister(self) -> None:
        """Take the module out of `sys.modules`: what it defines is then pickled by value, or not at all."""
        sys.modules.pop(self.module.__name__, None)

    def forget_inputs(self) -> None:
        """Let the inputs go that were preset as names; the namespace itself may live on in a cycle."""
        for name in self._preset:
            self.namespace.pop(name, None)


def _preset(inputs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Names that a file finds set: each upstream's uuid, and df_1, df_2 … in upstream order (Mage)."""
    names = {"df_%d" % (n + 1): value for n, (_uuid, value) in enumerate(inputs)}
    names.update((uuid, value) for uuid, value in inputs if not uuid.startswith("__"))
    return names
