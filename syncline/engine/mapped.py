"""The map of a graph-db: which one its tables are synced by, and what a cycle owes where its own differs."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import asyncpg

from syncline import names
from syncline.engine.map_changes import (
    ChangeKind,
    Definition,
    TableChange,
    definitions_of,
    filled_before,
    lists_standing,
    map_changes,
)
from syncline.engine.render.identity import Identity
from syncline.engine.render.links import LinkTable
from syncline.engine.render.listing import keys_from_list, list_marked
from syncline.engine.render.points import PointNames
from syncline.engine.render.statements import SchemaStatements
from syncline.engine.standing import earlier_map, list_standing
from syncline.engine.state import FILL, LOAD
from syncline.engine.strangers import strangers
from syncline.engine.table_map import SchemaMap, TableMap
from syncline.engine.template import sql
from syncline.sql import literal, quoted

__all__ = ["MapState", "read_map_state", "recount_step"]

_RECOUNTED: Final = 5_000
"""Rows whose counts are made again in one transaction."""


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
    fills: Mapping[str, int] = field(default_factory=dict)
    """Tables whose rows were being read again for added columns when the last cycle ended -> up to where."""
    earlier: SchemaMap | None = None
    """The stored map, as far as it can be read."""
    _definitions: Mapping[str, Definition] = field(default_factory=dict)

    def applied(self, failed: Collection[str]) -> Sequence[TableChange]:
        """Return the changes that are applied while these tables cannot be synced.

        What refers to rows whose ids change is read again after them.
        """
        out = set(failed)
        return [change for change in self.changes if change.table not in out and not change.after & out]

    async def record(
        self, target: asyncpg.Connection, failed: Collection[str], fills: Mapping[str, int]
    ) -> list[str]:
        """Store the map and queue what is owed, in the transaction that acquires the fence.

        Return the tables whose rows could not be listed: their targets do not tell keys any longer.

        Tables that cannot be synced keep their stored definition: their change is applied once they fit.
        `fills`: table -> the transaction below which its rows are read again.
        """
        changes = self.applied(failed)
        changed = {change.table: change for change in changes if change.kind is not ChangeKind.LEFT}
        written = changed if not self.first else self._definitions.keys() - set(failed)
        kept = [name for name in self._definitions if name in written]
        await target.execute(
            sql("mapped_write"),
            kept,
            [json.dumps(self._definitions[name]) for name in kept],
            [name in changed and changed[name].recount for name in kept],
        )
        reread = [name for name, change in changed.items() if change.reread]
        if reread:
            await target.execute(sql("mapped_unpark"), reread)
        untold: list[str] = []
        for change in self.changes:
            # While the list still tells the keys of the rows that a row's key names. Also of a table whose
            # change has to wait: its rows are removed by the map of now.
            if change.standing and change.table not in failed:
                schema_map = self.statements.schema_map
                if not await list_standing(target, schema_map, self.earlier, change.table):
                    untold.append(change.table)
        unlisted = [change.table for change in changes if change.unlisted]
        for name in unlisted:
            if statement := keys_from_list(self.statements.schema_map, name):
                await target.execute(statement)
        if unlisted:
            await target.execute("DELETE FROM sync_row WHERE table_name = ANY ($1::text[])", unlisted)
        for change in changes:
            if change.relisted is not None:
                await target.execute(sql("mapped_relist"), change.table, change.relisted)
        await self._record_kept(target, changes)
        left = [change.table for change in changes if change.kind is ChangeKind.LEFT]
        if left:
            await target.execute(sql("mapped_left"), left, [f"{LOAD}{name}" for name in left])
        await self._record_links_and_points(target, changes)
        begun = {name: bound for name, bound in fills.items() if name in changed and changed[name].fill}
        if begun:
            cursors = [f"{FILL}{name}" for name in begun]
            await target.execute(sql("mapped_fill"), list(begun), list(begun.values()), cursors)
        over = [name for name in self.fills if name not in fills]
        if over:
            await target.execute(sql("mapped_filled"), over, [f"{FILL}{name}" for name in over])
        if fills or self.owed_recounts(failed):
            await target.execute(sql("mapped_complete"), None)
        else:
            await self.complete(target, failed)
        return untold

    async def complete(self, target: asyncpg.Connection, failed: Collection[str]) -> None:
        """Store that the map is applied, unless a table cannot be synced: the next cycle compares again."""
        lacking = any(name in failed for name in self._definitions)
        await target.execute(sql("mapped_complete"), None if lacking else self.statements.map_hash)

    def owed_recounts(self, failed: Collection[str]) -> list[str]:
        """Return the tables whose counts are to be made again, in the order of the map."""
        wanted = {change.table for change in self.applied(failed) if change.recount} | self.recounts
        return [name for name in self.statements.tables if name in wanted and name not in failed]

    async def _record_kept(self, target: asyncpg.Connection, changes: Sequence[TableChange]) -> None:
        """Record which rows without a source row are kept no longer, or found by another key."""
        anew = [change.table for change in changes if change.rekeyed or change.kind is ChangeKind.LEFT]
        if anew:
            await target.execute("DELETE FROM sync_kept WHERE table_name = ANY ($1::text[])", anew)
        for name in [change.table for change in changes if change.anew]:
            if statement := list_marked(self.statements.schema_map, name):
                await target.execute(statement)
        over = [(change.table, False) for change in changes if change.unmarked]
        over += [(change.table, True) for change in changes if change.unstubbed]
        if over:
            await target.execute(sql("kept_left"), [name for name, _ in over], [stub for _, stub in over])

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
            await target.execute(sql("mapped_unqueue"), [*left, *map(names.second_collection, left)])
        for change in changes:
            if change.links_left:
                await target.execute(sql("mapped_unlink"), change.table, list(change.links_left))
            await self._record_owners_of_links(target, change)
            if not (change.points or change.indexed):
                continue
            table = self.statements.tables[change.table].table
            if table.vector is not None:
                own = Identity(self.statements.schema_map, table)
                statement = sql(
                    "mapped_queue" if change.points else "mapped_touch",
                    target=f"{own.ours} t" if table.listed else own.ours,
                    id=PointNames(table).of(),
                    order=own.column,
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
    target: asyncpg.Connection,
    statements: SchemaStatements,
    *,
    failed: Collection[str] = (),
    unread: Collection[str] = (),
) -> MapState:
    """Return how the stored map compares with that of the statements. Failed tables are not looked at.

    Of `unread` tables no cycle has read a row: what stands there already was written by somebody else.
    """
    rows = await target.fetch(sql("mapped_read"))
    definitions = definitions_of(statements.schema_map)
    if not rows:
        filled = await _filled(target, [statements.schema_map[name] for name in unread if name not in failed])
        return MapState(
            statements=statements,
            first=True,
            changes=tuple(filled_before(name, definitions[name]) for name in definitions if name in filled),
            strangers={name: said async for name, said in strangers(target, statements.schema_map, filled)},
            _definitions=definitions,
        )
    known = {row["table_name"]: json.loads(row["definition"]) for row in rows}
    before = {row["table_name"]: known[row["table_name"]] for row in rows if not row["gone"]}
    gone = [row["table_name"] for row in rows if row["gone"]]
    changes = map_changes(before, definitions, gone=gone)
    listed = [name for name in gone if name in definitions and lists_standing(known[name], definitions[name])]
    changes = tuple(replace(each, standing=True) if each.table in listed else each for each in changes)
    looked_at = [change.table for change in changes if change.ids and change.table not in failed]
    earlier = earlier_map(before) if any(change.anew for change in changes) else None
    return MapState(
        statements=statements,
        first=False,
        changes=changes,
        strangers={
            name: said
            async for name, said in strangers(
                target, statements.schema_map, looked_at, before=known, earlier=earlier
            )
        },
        earlier=(earlier_map(known) if listed else None) or earlier,
        recounts=frozenset(row["table_name"] for row in rows if row["recount"]),
        fills={row["table_name"]: row["filling"] for row in rows if row["filling"] is not None},
        _definitions=definitions,
    )


async def _filled(target: asyncpg.Connection, tables: Sequence[TableMap]) -> list[str]:
    """Return which of these tables have a row."""
    if not tables:
        return []
    probes = [
        sql("mapped_probe", name=literal(table.name), target=quoted(table.target)).strip() for table in tables
    ]
    rows = await target.fetch(sql("mapped_with_rows", filled=" UNION ALL ".join(probes)))
    return [row["name"] for row in rows]


async def recount_step(target: asyncpg.Connection, statements: SchemaStatements, name: str) -> bool:
    """Make the next counts of a table again, in the caller's transaction; return True when none are left."""
    after = await target.fetchval(sql("recounted"), name)
    last = await statements.recount.run_page(target, name, after=after, rows=_RECOUNTED)
    await target.execute(sql("recount_moved"), name, last is None, last)
    return last is None
