"""Deletes: the stream of deleted keys (tombstones), from the write-db to the rows to remove."""

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from syncline.engine.capture import Reading
from syncline.engine.dead_letters import DeadLetter
from syncline.engine.keys import is_text, key_of_bytes, row_uuid
from syncline.engine.render.fragments import commas
from syncline.engine.render.statements import Cursor, SchemaStatements
from syncline.engine.template import sql
from syncline.errors import StoreError, StoreRejected
from syncline.provider import SyncContext
from syncline.sql import literal
from syncline.stores.tenants import reading

__all__ = ["STAGE", "DeletedKey", "Deletes", "letter_of"]

STAGE = "sync_deletes"
_COLUMNS = ("sync_xid", "seq", "source_table", "key", "alive")


@dataclass(frozen=True, kw_only=True)
class DeletedKey:
    """One tombstone; its key in bytes."""

    version: int
    seq: int
    source: bytes
    parts: Sequence[bytes | None]
    alive: bool
    """Whether the write-db contains the key again."""

    @property
    def cursor(self) -> Cursor:
        """The cursor after it."""
        return Cursor(xid=self.version, key=(str(self.seq),))


class Deletes:
    """The statements of the tombstone stream, for one cycle."""

    def __init__(
        self, statements: SchemaStatements, context: SyncContext, target: asyncpg.Connection
    ) -> None:
        self._statements, self._context, self._target = statements, context, target
        self.create_stage = sql("deletes_create", stage=STAGE)
        tables = [
            f"('{literal(table.name)}', '{literal(table.source)}', {str(table.listed).lower()})"
            for table in statements.schema_map
        ]
        self._gone = sql("deletes_gone", tables=commas(tables), stage=STAGE)

    async def stage(self, source: asyncpg.Connection, cursor: Cursor, horizon: int, limit: int) -> int:
        """Copy up to `limit` keys into the stage and their rows into `sync_leaving`; return the count.

        Runs within the caller's graph-db transaction.
        """
        write = self._context.write
        query = self._statements.capture_deleted_at(write.schema, cursor, horizon=horizon, limit=limit)
        async with Reading(source, query, (), write.store.name, tables=self._sources()) as keys:
            staged = await keys.copy_into(self._target, STAGE, _COLUMNS)
        await self._target.execute(self._gone)
        return staged

    async def last(self) -> Cursor:
        """Return the cursor after the last staged key."""
        row = await self._target.fetchrow(sql("deletes_last", stage=STAGE))
        return Cursor(xid=row["sync_xid"], key=(str(row["seq"]),))

    async def first(self, cursor: Cursor, horizon: int) -> DeletedKey | None:
        """Return the first tombstone after the cursor, valid or not."""
        write = self._context.write
        query = self._statements.next_deleted(write.schema, cursor)
        async with write.store.driver() as source, reading(source, self._sources()):
            row = await source.fetchrow(query, *cursor.parameters(), str(horizon))
        if row is None:
            return None
        return DeletedKey(
            version=row["sync_xid"],
            seq=row["seq"],
            source=row["source_table"],
            parts=row["key"],
            alive=row["alive"],
        )

    def _sources(self) -> list[str]:
        return self._statements.sources(self._context.write.schema, list(self._statements.tables))

    async def settle(
        self, deleted: DeletedKey, error: StoreRejected
    ) -> tuple[dict[str, list[DeadLetter]], list[str]]:
        """Handle a key that was rejected alone, within the caller's graph-db transaction.

        A row whose key is not valid text was never applied: only its dead letter is removed. Returns dead
        letters for other keys, whose rows are then requested by key until they succeed or are given up, and
        the tables that skipped the tombstone because it lacks parts of their key.
        """
        letters: dict[str, list[DeadLetter]] = {}
        passed_over: list[str] = []
        for table in self._statements.schema_map:
            if table.source.encode() != deleted.source or deleted.alive:
                continue
            parts = [part for part in deleted.parts if part is not None]
            if not len(parts) == len(deleted.parts) == len(table.key):
                passed_over.append(table.name)
                self._context.log.error(
                    "tombstone skipped: it lacks parts of the table's key",
                    graph=self._context.graph.slug,
                    table=table.name,
                    seq=deleted.seq,
                )
                continue
            key = key_of_bytes(parts)
            if is_text(key):
                letters[table.name] = [letter_of(error, key, deleted.version)]
            else:
                await self._target.execute(sql("forget"), table.name, [row_uuid(key)])
        return letters, passed_over


def letter_of(error: StoreError, key: tuple[str, ...], version: int) -> DeadLetter:
    """Return the dead letter for a key that a store rejected."""
    return DeadLetter(
        key=key,
        version=version,
        sqlstate=error.sqlstate or "",
        message=error.said,
        by_code=error.by_code,
    )
