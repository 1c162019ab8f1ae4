"""The worker's side: what runs user code, under any interpreter from Python 3.8 on, with the standard library only.

Started by file path (`boot.py`) and loaded under the private name `_runwright_child`, so that no name of ours
stands in the way of a project's own modules. The service imports the same files as `app.executors.child`.
"""
