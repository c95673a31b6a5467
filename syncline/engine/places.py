"""Plans that look rows up by index, whatever the planner believes of a table without statistics."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

__all__ = ["BY_INDEX", "looking_up"]

BY_INDEX = "SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off"
"""For a transaction that looks entries up by key or reads them in order. Any other way reads all of a table,
and is what the planner takes where it lacks statistics."""


@asynccontextmanager
async def looking_up(connection: asyncpg.Connection, *, few: bool) -> AsyncIterator[None]:
    """Have rows, if they are `few`, look up what they are joined with by index, in the caller's transaction.

    Without statistics the planner takes each for many, and reads a table of any size instead. Only for
    statements in which every join has an index: others would compare each row with each.
    """
    if few:
        await connection.execute(_set("off"))
    yield
    if few:
        await connection.execute(_set("DEFAULT"))


def _set(value: str) -> str:
    return ";".join(f"SET LOCAL enable_{way} TO {value}" for way in ("hashjoin", "mergejoin", "seqscan"))
