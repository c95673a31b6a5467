"""The map of a graph-db: which one its tables are synced by, and what a cycle owes where its own differs."""

import json
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import asyncpg

from syncline.engine.map_changes import ChangeKind, Definition, TableChange, definitions_of, map_changes
from syncline.engine.render.identity import Identity
from syncline.engine.render.links import LinkTable
from syncline.engine.render.statements import SchemaStatements
from syncline.engine.template import sql
from syncline.sql import quoted

__all__ = ["MapState", "read_map_state", "recount_step"]

_RECOUNTED: Final = 5_000
"""Rows whose counts are made again in one transaction."""
_STRANGERS: Final = (
    "Rows stand there whose id the map does not make of their key: delete them and what refers to them, and "
    "the next cycle writes all of it again."
)


@dataclass(frozen=True, kw_only=True)
class MapState:
    """The stored map, compared with a cycle's."""

    statements: SchemaStatements
    first: bool
    """Whether none is stored: there is nothing to compare with, and nothing has to be done again."""
    changes: tuple[TableChange, ...] = ()
    strangers: Mapping[str, str] = field(default_factory=dict)
    """Table -> why it cannot be synced: rows stand there under other ids, which no cycle would find."""
    recounts: frozenset[str] = frozenset()
    """Tables whose counts were being made again when the last cycle ended."""
    _definitions: Mapping[str, Definition] = field(default_factory=dict)

    def applied(self, failed: Collection[str]) -> Sequence[TableChange]:
        """Return the changes that are applied while these tables cannot be synced.

        What refers to rows whose ids change is read again after them.
        """
        out = set(failed)
        return [change for change in self.changes if change.table not in out and not change.after & out]

    async def record(self, target: asyncpg.Connection, failed: Collection[str]) -> None:
        """Store the map and queue what is owed, in the transaction that acquires the fence.

        Tables that cannot be synced keep their stored definition: their change is applied once they fit.
        """
        changes = self.applied(failed)
        changed = {change.table: change for change in changes if change.kind is not ChangeKind.LEFT}
        written = changed if not self.first else self._definitions.keys() - set(failed)
        names = [name for name in self._definitions if name in written]
        await target.execute(
            sql("mapped_write"),
            names,
            [json.dumps(self._definitions[name]) for name in names],
            [name in changed and changed[name].recount for name in names],
        )
        reread = [name for name, change in changed.items() if change.reread]
        if reread:
            await target.execute(sql("mapped_unpark"), reread)
        left = [change.table for change in changes if change.kind is ChangeKind.LEFT]
        if left:
            await target.execute(sql("mapped_left"), left)
        await self._record_links_and_points(target, changes)
        if self.owed_recounts(failed):
            await target.execute(sql("mapped_complete"), None)
        else:
            await self.complete(target, failed)

    async def complete(self, target: asyncpg.Connection, failed: Collection[str]) -> None:
        """Store that the map is applied, unless a table cannot be synced: the next cycle compares again."""
        lacking = any(name in failed for name in self._definitions)
        await target.execute(sql("mapped_complete"), None if lacking else self.statements.map_hash)

    def owed_recounts(self, failed: Collection[str]) -> list[str]:
        """Return the tables whose counts are to be made again, in the order of the map."""
        wanted = {change.table for change in self.applied(failed) if change.recount} | self.recounts
        return [name for name in self.statements.tables if name in wanted and name not in failed]

    async def _record_links_and_points(
        self, target: asyncpg.Connection, changes: Sequence[TableChange]
    ) -> None:
        collections = {
            table.vector.collection for table in self.statements.schema_map if table.vector is not None
        }
        left = [
            change.collection_left
            for change in changes
            if change.collection_left is not None and change.collection_left not in collections
        ]
        if left:
            await target.execute(sql("mapped_unqueue"), left)
        for change in changes:
            if change.links_left:
                await target.execute(sql("mapped_unlink"), change.table, list(change.links_left))
            await self._record_owners_of_links(target, change)
            if not (change.points or change.indexed):
                continue
            table = self.statements.tables[change.table].table
            if table.vector is not None:
                statement = sql(
                    "mapped_queue" if change.points else "mapped_touch", target=quoted(table.name)
                )
                await target.execute(statement, table.vector.collection)

    async def _record_owners_of_links(self, target: asyncpg.Connection, change: TableChange) -> None:
        """Record which links the engine has made, where that begins or ends to matter."""
        if change.links_all or change.links_ours:
            await target.execute(sql("links_none_recorded"), [*change.links_all, *change.links_ours])
        if change.links_ours:
            schema_map = self.statements.schema_map
            for links in schema_map[change.table].links:
                if links.table in change.links_ours:
                    await target.execute(
                        LinkTable(schema_map, schema_map[change.table], links).all_recorded()
                    )


async def read_map_state(
    target: asyncpg.Connection, statements: SchemaStatements, *, failed: Collection[str] = ()
) -> MapState:
    """Return how the stored map compares with that of the statements. Failed tables are not looked at."""
    rows = await target.fetch(sql("mapped_read"))
    definitions = definitions_of(statements.schema_map)
    if not rows:
        return MapState(statements=statements, first=True, _definitions=definitions)
    before = {row["table_name"]: json.loads(row["definition"]) for row in rows if not row["gone"]}
    gone = [row["table_name"] for row in rows if row["gone"]]
    changes = map_changes(before, definitions, gone=gone)
    looked_at = [change.table for change in changes if change.ids and change.table not in failed]
    return MapState(
        statements=statements,
        first=False,
        changes=changes,
        strangers={name: said async for name, said in _strangers(target, statements, looked_at)},
        recounts=frozenset(row["table_name"] for row in rows if row["recount"]),
        _definitions=definitions,
    )


async def _strangers(
    target: asyncpg.Connection, statements: SchemaStatements, names: Sequence[str]
) -> AsyncIterator[tuple[str, str]]:
    """Yield the tables that have rows with other ids than the map makes of their keys, and what mends it."""
    for name in names:
        own = Identity(statements.schema_map, statements.tables[name].table)
        if not own.table.identified:
            continue
        strange = own.is_strange("t")
        if await target.fetchval(sql("mapped_strange", target=quoted(name), strange=strange)):
            schema = quoted(await target.fetchval("SELECT current_schema()"))
            leave = sql("mapped_strangers_leave", target=f"{schema}.{quoted(name)}", strange=strange).strip()
            yield name, f"{_STRANGERS} {leave};"


async def recount_step(target: asyncpg.Connection, statements: SchemaStatements, name: str) -> bool:
    """Make the next counts of a table again, in the caller's transaction; return True when none are left."""
    after = await target.fetchval(sql("recounted"), name)
    page = sql("recount_page", target=quoted(name))
    [row] = await target.fetch(page, after, _RECOUNTED, statements.recount.labels(name))
    await statements.recount.run(target)
    ended: bool = row["rows"] < _RECOUNTED
    await target.execute(sql("recount_moved"), name, ended, None if ended else row["last"])
    return ended
