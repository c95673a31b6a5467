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
    run_id: str | None = None
    """The run whose cycle it is by its name, if it is of the worker's own role."""
    attempt: int | None = None
    held_since: datetime | None = None
    """When that attempt took the graph, to the minute."""
    idle_since: datetime | None = None
    """Since when its session asks for nothing: the worker is busy elsewhere, or frozen, or away."""
