"""The map of a graph-db: which one its tables are synced by, and what a cycle owes where its own differs."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import asyncpg

from syncline.engine.map_changes import (
    ChangeKind,
    Definition,
    TableChange,
    definitions_of,
    filled_before,
    map_changes,
)
from syncline.engine.render.fragments import column
from syncline.engine.render.statements import SchemaStatements
from syncline.engine.strangers import strangers
from syncline.engine.template import sql
from syncline.maps.key_types import Kind
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
            if not (change.points or change.indexed):
                continue
            table = self.statements.tables[change.table].table
            if table.vector is not None:
                statement = sql(
                    "mapped_queue" if change.points else "mapped_touch",
                    target=quoted(table.name),
                    id=column(table.id_column),
                )
                await target.execute(statement, table.vector.collection)


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
        filled = await _filled(target, [name for name in unread if name not in failed])
        return MapState(
            statements=statements,
            first=True,
            changes=tuple(filled_before(name, definitions[name]) for name in definitions if name in filled),
            strangers={name: said async for name, said in strangers(target, statements.schema_map, filled)},
            _definitions=definitions,
        )
    before = {row["table_name"]: json.loads(row["definition"]) for row in rows if not row["gone"]}
    gone = [row["table_name"] for row in rows if row["gone"]]
    changes = map_changes(before, definitions, gone=gone)
    looked_at = [change.table for change in changes if change.ids and change.table not in failed]
    return MapState(
        statements=statements,
        first=False,
        changes=changes,
        strangers={name: said async for name, said in strangers(target, statements.schema_map, looked_at)},
        recounts=frozenset(row["table_name"] for row in rows if row["recount"]),
        _definitions=definitions,
    )


async def _filled(target: asyncpg.Connection, names: Sequence[str]) -> list[str]:
    """Return which of these tables have a row."""
    if not names:
        return []
    probes = [sql("mapped_probe", name=literal(name), target=quoted(name)).strip() for name in names]
    rows = await target.fetch(sql("mapped_filled", filled=" UNION ALL ".join(probes)))
    return [row["name"] for row in rows]


async def recount_step(target: asyncpg.Connection, statements: SchemaStatements, name: str) -> bool:
    """Make the next counts of a table again, in the caller's transaction; return True when none are left."""
    table = statements.schema_map[name]
    place = {"target": quoted(name), "id": column(table.id_column)}
    if table.id_type.kind is not Kind.UUID:
        await target.fetch(sql("recount_all", **place), statements.recount.labels(name))
        await statements.recount.run(target)
        await target.execute(sql("recount_moved"), name, True, None)
        return True
    after = await target.fetchval(sql("recounted"), name)
    labels = statements.recount.labels(name)
    [row] = await target.fetch(sql("recount_page", **place), after, _RECOUNTED, labels)
    await statements.recount.run(target)
    ended: bool = row["rows"] < _RECOUNTED
    await target.execute(sql("recount_moved"), name, ended, None if ended else row["last"])
    return ended
