"""Faults of definitions in the service's log: each once when it appears, and once when it is gone."""

import logging

from app.pipelines.catalogue import Catalogue

log = logging.getLogger(__name__)


class FaultLog:
    """Compares what is wrong with what was wrong at the last look."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def look(self, catalogue: Catalogue) -> None:
        """Tell what has changed since the last look."""
        before, self._known = self._known, _faults(catalogue)
        for subject, text in self._known.items():
            if before.get(subject) != text:
                log.warning("not usable: %s", text)
        for subject in before.keys() - self._known.keys():
            log.info("no fault any more: %s", subject)


def _faults(catalogue: Catalogue) -> dict[str, str]:
    """What cannot be used, by file, and by the name of the trigger where a file holds several."""
    errors = [catalogue.project_error, *(entry.error for entry in catalogue.entries())]
    found = {error.file: str(error) for error in (*errors, *catalogue.trigger_errors()) if error}
    told = set(found.values())
    triggers = [entry for entry in catalogue.triggers() if entry.error and entry.error not in told]
    return found | {f"{entry.file}, trigger '{entry.name}'": str(entry.error) for entry in triggers}
