"""Entry of a worker process: `python …/child/boot.py <fd of the link>`, working directory = project folder."""

import os
import sys


def main():  # type: () -> None
    """Give the siblings of this file a private package name, set the import path, serve blocks."""
    here = os.path.dirname(os.path.abspath(__file__))
    if sys.path and os.path.abspath(sys.path[0]) == here:
        del sys.path[0]
    package = type(sys)("_runwright_child")
    package.__path__ = [here]
    sys.modules[package.__name__] = package
    from _runwright_child import worker  # type: ignore[import-not-found]

    worker.serve(int(sys.argv[1]))


# Guarded: multiprocessing's spawn method imports the main file again in its children.
if __name__ == "__main__":
    main()
