"""`make soak`: kill a real service at random moments, and check everything after each kill.

`SOAK_KILLS` (100), `SOAK_DATABASE` (sqlite or postgres), `SOAK_SERVICES` (1; more of them need Postgres), `SOAK_SEED`
(random, printed), `SOAK_ROUNDS` (1) soaks one after the other, `SOAK_KEEP`: a folder for what is left of a bad one.
"""

import os
import random
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.postgres import serving
from tests.soak.soak import Soak


def main() -> int:
    """1 when anything was wrong."""
    wanted = {
        name: os.environ.get(f"SOAK_{name}", "")
        for name in ("KILLS", "DATABASE", "SERVICES", "SEED", "ROUNDS")
    }
    seed = int(wanted["SEED"] or random.randrange(10**6))
    bad = 0
    with ExitStack() as stack:
        server = stack.enter_context(serving()) if wanted["DATABASE"] == "postgres" else None
        for number in range(int(wanted["ROUNDS"] or 1)):
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="rw-soak-", ignore_cleanup_errors=True)
            )
            soak = Soak(
                Path(folder),
                kills=int(wanted["KILLS"] or 100),
                seed=seed + number,
                database=server.url(server.create()) if server else "",
                services=int(wanted["SERVICES"] or 1),
                say=lambda text: print(text, flush=True),
            )
            if soak.run():
                bad += 1
                if place := os.environ.get("SOAK_KEEP"):
                    soak.keep(Path(place) / f"seed-{seed + number}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
