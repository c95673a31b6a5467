"""The holder of a graph's lock, whom a cycle names that finds it taken: any role that may connect can be."""

import asyncpg

from syncline.engine.template import sql
from syncline.lock_holder import LockHolder

__all__ = ["find_holder"]


async def find_holder(target: asyncpg.Connection, schema: str) -> LockHolder | None:
    """Return who holds the lock of the graph in `schema`; None if it was given back meanwhile."""
    row = await target.fetchrow(sql("holder"), schema)
    return None if row is None else LockHolder.model_validate(dict(row))
