"""Plans that look rows up by index, whatever the planner believes of a table without statistics."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

__all__ = ["BY_INDEX", "SCHEMA_PATH", "looking_up"]

BY_INDEX = "SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off"
"""For a transaction that looks entries up by key or reads them in order. Any other way reads all of a table,
and is what the planner takes where it lacks statistics."""

SCHEMA_PATH = """
SELECT set_config('search_path', quote_ident($1), true), to_regclass(quote_ident($1) || '.sync_state')
"""
"""Puts a schema on the search_path until the transaction ends, and refuses one that the role may not use:
else it is left out of it without a word, and its tables do not exist."""


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
