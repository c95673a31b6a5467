"""Pruning: deleted keys that were read long ago are cleared away from the write-db, some in each cycle."""

import time
from collections.abc import Callable
from typing import Final

import asyncpg

from syncline.engine.render.statements import deleted_keys, positions_of
from syncline.engine.schema_transaction import BY_INDEX
from syncline.engine.state import deletes_read
from syncline.engine.template import sql
from syncline.errors import StoreError
from syncline.provider import SyncContext
from syncline.stores.tenants import writing

__all__ = ["Pruning"]

_ROWS: Final = 50_000
_SECONDS: Final = 5.0
"""Of one cycle: changes that come meanwhile wait for its end. What is left is for the next one."""
_TABLE: Final = "sync_tombstone"


class Pruning:
    """The clearing up behind deletes, for all graphs. A role that may not is told of once for each schema."""

    def __init__(self) -> None:
        self._warned: set[tuple[str, str]] = set()

    def not_allowed(self, context: SyncContext) -> None:
        """Say that deleted keys pile up, because this role has no right to clear them away."""
        self._warn_once(context, f"its role has no DELETE on {context.write.schema}.{_TABLE}")

    async def run(
        self,
        context: SyncContext,
        target: asyncpg.Connection,
        *,
        read: int,
        reader: str | None,
        out_of_time: Callable[[], bool],
    ) -> int:
        """Clear away what was read before transaction `read` and is old enough; return how many keys.

        Up to where is remembered for `reader`; None where the role may not write that down.
        What the graph's shadow has yet to read stays. A write-db that will not have it is told of once, and
        fails no cycle: nobody waits for this.
        """
        before = await deletes_read(target, context.target.schema, read)
        try:
            async with context.write.store.driver() as source:
                pruned = await _prune(source, context.write.schema, before, reader, out_of_time)
        except StoreError as error:
            self._warn_once(context, str(error))
            return 0
        if pruned:
            context.log.info("deleted keys pruned", graph=context.graph.slug, keys=pruned)
        return pruned

    def _warn_once(self, context: SyncContext, reason: str) -> None:
        place = context.write.store.name, context.write.schema
        if place not in self._warned:
            self._warned.add(place)
            context.log.warning("deleted keys pile up", graph=context.graph.slug, reason=reason)


async def _prune(
    source: asyncpg.Connection, schema: str, before: int, reader: str | None, out_of_time: Callable[[], bool]
) -> int:
    tombstones, positions = deleted_keys(schema), positions_of(schema)
    noted = sql("prune_noted", positions=positions) if reader is not None else ""
    statement = sql("prune", tombstones=tombstones, kept=sql("kept"), noted=noted)
    written = [tombstones] if reader is None else [tombstones, positions]
    remembered = () if reader is None else (reader,)
    started, rows, pruned = time.monotonic(), _ROWS, 0
    place = ("0", 0)
    while time.monotonic() - started < _SECONDS and not out_of_time():
        try:
            # At once or not: autovacuum would give way to whoever waits for the lock, cycle after cycle.
            async with writing(source, written, nowait=True, first=BY_INDEX):
                found = await source.fetchrow(statement, *place, rows, str(before), *remembered)
        except asyncpg.LockNotAvailableError:
            return pruned
        except asyncpg.QueryCanceledError:
            # A limit of the role's or the database's: so many at once are too many for it.
            if rows == 1:
                raise
            rows = max(1, rows // 10)
            continue
        if found is None or not found["pruned"]:
            return pruned
        pruned += found["pruned"]
        place = found["xid"], found["seq"]
    return pruned
