"""Runs of `SyncGraph` as operators look for them: of one graph, and the newest of every graph, cheaply."""
