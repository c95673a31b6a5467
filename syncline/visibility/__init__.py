"""Waits for what a transaction wrote, in the graph-db and in the vector store."""
