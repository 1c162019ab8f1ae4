"""The only SQL. Store functions are plain `def f(tx: Connection, …)`, run by `db.write(f, …)` and `db.read(f, …)`.

Nothing can await inside a transaction, and a store function never commits: the database object does, once.
"""
