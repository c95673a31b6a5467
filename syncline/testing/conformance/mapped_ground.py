"""Mapped ground: an author's own map, its tables, and the built-in engine as the judge.

The engine syncs the same write-db from the beginning into a schema of its own, and tables are compared whole.
It shares no cursor and no row with the provider that is on trial. Ids that a target assigns are others there:
in their place the keys of their rows are compared.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Final

import asyncpg
from pydantic import SecretStr

from syncline.capture.install.checks import target_columns
from syncline.capture.install.install import adopt
from syncline.devstack.postgres import EmbeddedPostgres
from syncline.engine import SchemaMap, SyncEngine, TableMap
from syncline.engine.render.identity import Identity
from syncline.maps.ids import IdRule
from syncline.messages.base import GraphRef
from syncline.messages.sync import SyncResult
from syncline.migrations import migrate_bookkeeping
from syncline.operator.target_tables import target_tables
from syncline.provider import GraphSchema, GraphVectors, RetryRules
from syncline.sql import quoted
from syncline.stores.postgres import PostgresStore
from syncline.testing.conformance.ground import Ground, Poison
from syncline.testing.conformance.made import (
    delete_rows,
    insert_rows,
    key_condition,
    key_value,
    source_tables,
)
from syncline.testing.one_graph import SCHEMA, TestGraph

__all__ = ["MappedGround"]

_EXPECTED: Final = f"{SCHEMA}_expected"
_CANARY: Final = "a value that nobody may tell"
_POISONED, _LATE, _EARLY, _ORPHANS = 301, 101, 102, 501
_STAMPS: Final = frozenset({"sync_version", "sync_run"})
_AT_ONCE: Final = RetryRules(dead_letter_seconds=0, vector_seconds=0)
_numbers = count(1)
# Foreign keys of the author's tables are in nobody's way, and triggers of capture fire all the same.
_FREELY: Final = "SET session_replication_role = replica;"


class MappedGround(Ground):
    """Tables of a map, made from it or by scripts of the author."""

    def __init__(
        self, schema_map: SchemaMap, sources: str | None, targets: str | None, values: Mapping[str, str]
    ) -> None:
        self.schema_map = schema_map
        self._sources, self._target_tables, self._values = sources, targets, values
        tables = schema_map.tables
        first = next((table for table in tables if not table.parents), tables[0])
        self.locked = quoted(first.name)
        self.world = self._rows(1, 30)
        self.more = self._rows(31, 70) + _FREELY + "".join(self._renamed())
        self.ties = f"BEGIN; {self._rows(1, 100)} COMMIT;"
        gone = [delete_rows(table, 1, 3) for table in reversed(tables)]
        self.removed = f"{_FREELY} {''.join(gone)} {''.join(self._cleared())}"
        orphans = [table for table in tables if set(table.parents) - {table.name}]
        self.children = self._rows(_ORPHANS, _ORPHANS + 2, orphans) if orphans else ""
        self.parents = self._rows(_ORPHANS, _ORPHANS + 2, [table for table in tables if table not in orphans])
        self.late = self._rows(_LATE, _LATE, [first]), self._rows(_EARLY, _EARLY, [first])
        self.canary = self._canary()
        self._poisoned, self.poison = self._poison()

    def lost(self, found: Sequence[str]) -> list[str]:
        """Return differences of other tables, and all but one missing row of its own."""
        table = self._poisoned
        own = f"{table.name}: missing"
        apart = table.stats is not None and not table.counters
        beside = (f"{table.stats_place[0]}: missing",) if apart else ()
        others = [each for each in found if not each.startswith((own, *beside))]
        return others + [each for each in found if each.startswith(own)][1:]

    async def prepare(self, server: EmbeddedPostgres) -> tuple[str, str]:
        """Make both databases, with bookkeeping, tables and capture."""
        number = next(_numbers)
        write_name, target_name = f"template_mapped_write_{number}", f"template_mapped_graph_{number}"
        for name in (write_name, target_name):
            server.ensure_database(name)
        write, target = (
            PostgresStore(name, SecretStr(server.dsn(name)), pool_size=2, application_name="template")
            for name in (write_name, target_name)
        )
        script = "\n".join(source_tables(self.schema_map)) if self._sources is None else self._sources
        async with write.driver() as connection:
            await connection.execute(f"CREATE SCHEMA {SCHEMA}; SET search_path = {SCHEMA}; {script}")
            await connection.execute("RESET search_path")
        await adopt(write, SCHEMA, self.schema_map)
        await self._make_targets(GraphSchema(store=target, schema=SCHEMA))
        for store in (write, target):
            await store.close()
        return write_name, target_name

    async def differences(self, graph: TestGraph, *, vectors: bool) -> list[str]:
        """Sync what the write-db has into a schema of its own, and compare."""
        await self._expected(graph)
        found: list[str] = []
        async with graph.target.driver() as connection:
            for name, columns in self._compared():
                found += await self._compare(connection, name, columns)
            for table in self.schema_map:
                if vectors and table.vector is not None:
                    found += await self._compare_points(graph, connection, table, table.vector.collection)
        return found

    async def waits(self, graph: TestGraph) -> bool:
        """Whether the engine parks something."""
        return (await self._expected(graph)).parked > 0

    async def _expected(self, graph: TestGraph) -> SyncResult:
        async with graph.target.driver() as connection:
            await connection.execute(f"DROP SCHEMA IF EXISTS {_EXPECTED} CASCADE")
        for table in self.schema_map:
            if table.vector is not None:
                await graph.vectors.drop_collection(f"{_EXPECTED}_{table.vector.collection}")
        target = GraphSchema(store=graph.target, schema=_EXPECTED)
        await self._make_targets(target)
        context = replace(
            graph.context(),
            graph=GraphRef(id=graph.ref.id, slug="expected"),
            target=target,
            vectors=GraphVectors(store=graph.vectors, prefix=f"{_EXPECTED}_"),
            heartbeat=lambda _: None,
            retry=_AT_ONCE,
        )
        return await SyncEngine(self.schema_map).run_cycle(context)

    async def _make_targets(self, place: GraphSchema) -> None:
        await migrate_bookkeeping(place.store, place.schema)
        script = self._target_tables
        if script is None:
            script = "\n".join(target_tables(self.schema_map, place.schema, types={}).values())
        async with place.store.driver() as connection:
            await connection.execute(f"SET search_path = {place.schema}; {script}")
            await connection.execute("RESET search_path")

    def _compared(self) -> Iterator[tuple[str, dict[str, TableMap | None]]]:
        """Yield each table with the columns that are compared, and of which rows they are the ids."""
        for table in self.schema_map:
            own = [name for name in target_columns(self.schema_map, table) if name not in _STAMPS]
            own += [stat.column for stat in table.counters if stat.column not in own]
            ids: dict[str, TableMap | None] = dict.fromkeys(own)
            ids |= {each.target_column: self.schema_map[each.parent] for each in table.references}
            if table.identified and table.into is None:
                ids[table.id_column] = table
            yield table.target, {name: ids[name] for name in own}
            for links in table.links:
                ends: dict[str, TableMap | None] = {
                    links.owner: table,
                    links.member: self.schema_map[links.parent],
                }
                yield links.table, ends if links.position is None else {**ends, links.position: None}
            if table.stats is not None and not table.counters:
                stored, owner = table.stats_place
                yield stored, {owner: table, **dict.fromkeys(stat.column for stat in table.stats.columns)}

    async def _compare(
        self, connection: asyncpg.Connection, name: str, columns: Mapping[str, TableMap | None]
    ) -> list[str]:
        found: list[str] = []
        rows = {schema: self._selected(schema, name, columns) for schema in (_EXPECTED, SCHEMA)}
        for verdict, one, other in (("missing", _EXPECTED, SCHEMA), ("extra", SCHEMA, _EXPECTED)):
            query = f"{rows[one]} EXCEPT ALL {rows[other]}"
            found += [f"{name}: {verdict} {dict(row)}" for row in await connection.fetch(query)]
        return found

    def _selected(self, schema: str, name: str, columns: Mapping[str, TableMap | None]) -> str:
        listed = ", ".join(
            f"{self._known(schema, f't.{quoted(column)}', table)} AS {quoted(column)}"
            for column, table in columns.items()
        )
        return f"SELECT {listed} FROM {schema}.{quoted(name)} t"  # noqa: S608 - a test's own tables

    def _known(self, schema: str, value: str, table: TableMap | None) -> str:
        """Return a value as text; in place of an id that the target assigned, the key of its row."""
        if table is None or table.id_rule is not IdRule.ASSIGNED:
            return f"{value}::text"
        if table.key_column is None:
            return f"{Identity(self.schema_map, table, schema=schema).parts_of(value)}::text"
        # A provider that is not based on the engine keeps no list of rows.
        key, own = quoted(table.key_column), quoted(table.id_column)
        return f"(SELECT k.{key}::text FROM {schema}.{quoted(table.name)} k WHERE k.{own} = {value})"  # noqa: S608

    async def _compare_points(
        self, graph: TestGraph, connection: asyncpg.Connection, table: TableMap, collection: str
    ) -> list[str]:
        points: list[dict[str, object]] = []
        for schema in (_EXPECTED, SCHEMA):
            points.append({})
            own, rows = f"t.{quoted(table.id_column)}", f"{schema}.{quoted(table.name)} t"
            query = f"SELECT {own}::text, {self._known(schema, own, table)} FROM {rows}"  # noqa: S608
            known = dict(await connection.fetch(query))
            async for batch in graph.vectors.scroll(f"{schema}_{collection}"):
                told = {str(point.id): dict(point.payload) for point in batch}
                points[-1] |= {known.get(id_, id_): payload for id_, payload in told.items()}
        expected, there = points
        gone, more = expected.keys() - there.keys(), there.keys() - expected.keys()
        found = [f"vectors of {collection}: missing {expected[key]}" for key in gone]
        found += [f"vectors of {collection}: extra {there[key]}" for key in more]
        found += [
            f"vectors of {collection} {key}: payload is {there[key]}, should be {expected[key]}"
            for key in expected.keys() & there.keys()
            if there[key] != expected[key]
        ]
        return found

    # What is written --------------------------------------------------------------------------------------

    def _rows(self, first: int, last: int, tables: Sequence[TableMap] | None = None) -> str:
        made: dict[str, str] = {}
        for table in self.schema_map.tables if tables is None else tables:
            made.setdefault(table.source, insert_rows(self.schema_map, table, first, last, self._values))
        return _FREELY + "".join(made.values())

    def _texts(self) -> Iterator[tuple[TableMap, str]]:
        for table in self.schema_map:
            by_value = {reference.column for reference in table.references if reference.by}
            for name, source in table.texts.items():
                free = name not in table.expressions and source not in {*table.key, *by_value}
                if free and f"{table.source}.{source}" not in self._values:
                    yield table, source

    def _renamed(self) -> Iterator[str]:
        for table, column in self._texts():
            named = f"{quoted(column)} = 'renamed'"
            yield f"UPDATE {quoted(table.source)} SET {named} WHERE {key_condition(table, 2)};"  # noqa: S608

    def _cleared(self) -> Iterator[str]:
        """Yield statements that take links and optional references from a row."""
        for table in self.schema_map:
            nothing = [f"{quoted(links.source)} = NULL" for links in table.links]
            nothing += [
                f"{quoted(column)} = NULL"
                for reference in table.optional
                for column in reference.sources
                if column not in table.key
            ]
            if nothing:
                cleared = ", ".join(nothing)
                yield f"UPDATE {quoted(table.source)} SET {cleared} WHERE {key_condition(table, 7)};"  # noqa: S608

    def _canary(self) -> tuple[str, str] | None:
        text = next(self._texts(), None)
        if text is None:
            return None
        table, column = text
        return (
            f"UPDATE {quoted(table.source)} SET {quoted(column)} = $1 WHERE {key_condition(table, 5)}",  # noqa: S608
            _CANARY,
        )

    def _poison(self) -> tuple[TableMap, Poison]:
        table = next(
            (table for table in self.schema_map if table.identified and not table.listed),
            self.schema_map.tables[0],
        )
        type_ = table.key_types[0]
        column = table.key_column or next(iter(table.own_parts), None) or table.target_key[0]
        value = key_value(type_, str(_POISONED))
        condition = f"{quoted(column)} IS DISTINCT FROM {value}"
        touched = f"{quoted(table.key[0])} = {quoted(table.key[0])}"
        return table, Poison(
            refused=f"ALTER TABLE {quoted(table.name)} ADD CONSTRAINT no_poison CHECK ({condition})",
            row=self._rows(_POISONED, _POISONED, [table]),
            allowed=f"ALTER TABLE {quoted(table.name)} DROP CONSTRAINT no_poison",
            mended=f"UPDATE {quoted(table.source)} SET {touched} WHERE {key_condition(table, _POISONED)}",  # noqa: S608
        )
