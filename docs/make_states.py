"""Prints docs/states.md, made from the tables in app/models/states.py. `make states` writes the file."""

import sys

from app.models.states import BLOCK_TRANSITIONS, NODE_TRANSITIONS, RUN_TRANSITIONS, mermaid

HEAD = """\
# States and the legal moves between them

Made from `app/models/states.py` by `make states`; a test compares the two. A status that has no way out never
changes again: trying a finished run once more makes a new run.
"""


def page() -> str:
    """The text of docs/states.md."""
    diagrams = (
        mermaid("Pipeline run", RUN_TRANSITIONS),
        mermaid("Block run", BLOCK_TRANSITIONS),
        mermaid("Node", NODE_TRANSITIONS),
    )
    return "\n".join((HEAD, *diagrams))


if __name__ == "__main__":
    sys.stdout.write(page())
