"""Every failpoint with everything that can happen there, on both databases: `python -m tests.failpoints [word …]`.

Only scenarios that have one of the words in their name, or `sqlite`, `postgresql`. Exit 1 when one was bad. A report
is left in `reports/`.
"""

import sys

from tests.failpoints.catalogue import everything
from tests.failpoints.play import BACKENDS, play_all
from tests.postgres import serving
from tests.report import report


def main(words: list[str]) -> int:
    """1 when one was bad, 2 when no scenario has such a name."""
    backends = [b for b in BACKENDS if b in words] or list(BACKENDS)
    words = [word for word in words if word not in BACKENDS]
    chosen = [s for s in everything() if not words or any(word in s.name for word in words)]
    if not chosen:
        print(f"no scenario has any of these in its name: {', '.join(words)}")
        return 2
    with report("failpoints"), serving() as server:
        return 1 if play_all(server, chosen, backends) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
