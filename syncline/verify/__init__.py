"""Verification: compares a graph with what the write-db says it should be, and requests repairs."""

from syncline.verify.verify import verify

__all__ = ["verify"]
