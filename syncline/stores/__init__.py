"""Stores behind narrow ports: Postgres and the vector store, with driver errors mapped to ours."""
