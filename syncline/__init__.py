"""Syncline: change data capture from a Postgres write-db to a graph-db and a vector store. The public API."""
