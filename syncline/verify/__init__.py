"""Verification: is the graph what the write-db says it should be, and asking for what is not."""

from syncline.verify.verify import verify

__all__ = ["verify"]
