"""Pruning: deletes tombstones that were read long ago from the write-db, some in each cycle."""

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
from syncline.sql import string_literal
from syncline.stores.tenants import writing

__all__ = ["Pruning"]

_FIRST: Final = 1_000
_ROWS: Final = 50_000
"""Looked at in one statement, at first and at most. Few have become old since the last cycle."""
_SECONDS: Final = 5.0
"""Time limit in one cycle, since new changes wait for its end. The next cycle continues."""
_TABLE: Final = "sync_tombstone"


class Pruning:
    """Prunes tombstones, for all graphs. A missing privilege is logged once per schema."""

    def __init__(self) -> None:
        self._warned: set[tuple[str, str]] = set()

    def not_allowed(self, context: SyncContext) -> None:
        """Log that tombstones pile up because this role has no privilege to delete them."""
        self._warn_once(context, f"its role has no DELETE on {context.write.schema}.{_TABLE}")

    async def run(
        self,
        context: SyncContext,
        target: asyncpg.Connection,
        *,
        read: int,
        reader: str | None,
        out_of_time: Callable[[], bool],
        own: str | None = None,
    ) -> int:
        """Delete tombstones read before transaction `read` that are old enough; return their number.

        Of tenant `own` alone, if it is given. The limit reached is stored for `reader`; None if the role may
        not write it. Tombstones that the graph's shadow has yet to read stay. A failure in the write-db is
        logged once and fails no cycle, since nothing depends on pruning.
        """
        before = await deletes_read(target, context.target.schema, read)
        try:
            async with context.write.store.driver() as source:
                pruned = await _prune(source, context.write.schema, before, reader, out_of_time, own)
        except StoreError as error:
            self._warn_once(context, str(error))
            return 0
        if pruned:
            context.log.info("tombstones pruned", graph=context.graph.slug, keys=pruned)
        return pruned

    def _warn_once(self, context: SyncContext, reason: str) -> None:
        place = context.write.store.name, context.write.schema
        if place not in self._warned:
            self._warned.add(place)
            context.log.warning("tombstones pile up", graph=context.graph.slug, reason=reason)


async def _prune(
    source: asyncpg.Connection,
    schema: str,
    before: int,
    reader: str | None,
    out_of_time: Callable[[], bool],
    own: str | None,
) -> int:
    tombstones, positions = deleted_keys(schema), positions_of(schema)
    tenant = "" if own is None else string_literal(own)
    noted = ""
    if reader is not None:
        noted = sql("tenant_prune_noted" if tenant else "prune_noted", positions=positions, tenant=tenant)
    of_tenant = f' AND tenant COLLATE "C" = {tenant}' if tenant else ""
    statement = sql("prune", tombstones=tombstones, kept=sql("kept"), noted=noted, own=of_tenant)
    written = [tombstones] if reader is None else [tombstones, positions]
    remembered = () if reader is None else (reader,)
    started, rows, most, pruned = time.monotonic(), min(_FIRST, _ROWS), _ROWS, 0
    place = ("0", 0)
    while time.monotonic() - started < _SECONDS and not out_of_time():
        try:
            # NOWAIT: autovacuum would yield to a waiting lock request, cycle after cycle.
            async with writing(source, written, nowait=True, first=BY_INDEX):
                found = await source.fetchrow(statement, *place, rows, str(before), *remembered)
        except asyncpg.LockNotAvailableError:
            return pruned
        except asyncpg.QueryCanceledError:
            # A limit of the role or the database: this many rows at once exceed it.
            if rows == 1:
                raise
            rows = most = max(1, rows // 10)
            continue
        if found is None or not found["pruned"]:
            return pruned
        pruned += found["pruned"]
        if found["all_old"]:
            rows = min(most, 10 * rows)
        place = found["xid"], found["seq"]
    return pruned
