"""Embedding services: texts in, vectors out."""
