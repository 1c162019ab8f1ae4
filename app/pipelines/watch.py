"""A file that is read again when it changed on disk."""

from pathlib import Path

from app.pipelines.files import Signature, read_text, signature
from app.pipelines.problems import BadDefinition, DefinitionError


class WatchedFile:
    """One file of the project: its text, or why it cannot be read; neither when it does not exist.

    :meth:`look` costs one `stat` when nothing changed. A file that changed is read once more at the next
    look: a second change within one tick of the file system's clock leaves no other trace. That a file went away or
    became empty is believed at the second look only: editors and `git checkout` do that for a moment, and
    a trigger must not be taken for deleted because of it.
    """

    def __init__(self, root: Path, relative: str) -> None:
        self.root, self.relative = root, relative
        self.text: str | None = None
        self.error: DefinitionError | None = None
        self._path = str(root / relative)
        self._signature: Signature | None = None
        self._settled = False
        self._doubted = False

    def look(self) -> bool:
        """Whether the text (or its absence, or its fault) differs from the last look."""
        found = signature(self._path)
        if found == self._signature and self._settled:
            return False
        self._settled = found == self._signature
        self._signature = found
        text, error = self._read()
        if not text and error is None and self.text and not self._doubted:
            self._doubted, self._settled = True, False
            return False
        self._doubted = False
        before, self.text, self.error = (self.text, self.error), text, error
        return before != (text, error)

    def _read(self) -> tuple[str | None, DefinitionError | None]:
        try:
            text, self._signature = read_text(self.root, self.relative)
            return text, None
        except FileNotFoundError:
            return None, None
        except BadDefinition as bad:
            return None, bad.error
        except (
            OSError
        ) as error:  # no rights, no descriptors left …: the file may be fine, so it is tried again
            self._settled = False
            return None, DefinitionError(f"cannot be read: {error.strerror}", self.relative)
