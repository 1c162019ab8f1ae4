"""When a pipeline must run, whether it may start, and the running of it."""
