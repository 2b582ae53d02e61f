"""The archive: every topic as a Delta table, to query, to train from, to restore from."""
