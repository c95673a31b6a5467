"""The engine's bookkeeping tables in a graph-db: revisions, oldest first."""
