"""The engine's books in a graph-db: revisions, oldest first."""
