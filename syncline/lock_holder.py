"""The session that holds a graph's lock, as a cycle that found it taken tells it."""

from datetime import datetime

from syncline.message import Message

__all__ = ["LockHolder"]


class LockHolder(Message):
    """The session that holds a graph's lock on the graph-db. Anybody who may connect there can take it."""

    pid: int | None = None
    role: str | None = None
    application_name: str | None = None
    since: datetime | None = None
    """When its session began; null when the worker's role may not see it: grant it pg_read_all_stats."""
