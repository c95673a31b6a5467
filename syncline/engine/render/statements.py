"""Statements: the SQL of a table map, from capture in the write-db to the graph-db.

Table maps are code, so their names and expressions are trusted; names are still always quoted. Graph-db
statements contain no schema: each transaction's `search_path` is the graph's schema, so one rendered
statement serves every graph. Write-db tables belong to others, so every source is schema-qualified: those
statements are for `syncline.stores.tenants.reading`, where only pg_catalog is searched.

One module because a table's statements share its names, its stage and the form of its cursor.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass

from syncline.engine.comparison import Comparison
from syncline.engine.key_forms import cast, ordered, safe
from syncline.engine.keys import hex_of, is_text, key_bytes, key_text, of_hex
from syncline.engine.map_changes import map_hash
from syncline.engine.render.deletes import Removal
from syncline.engine.render.fragments import (
    commas,
    compared,
    generated_columns,
    key_source,
    of_table,
    row_id,
    same_key,
    selection,
    source_names,
    stage_columns,
)
from syncline.engine.render.listing import Listing
from syncline.engine.render.marks import landed
from syncline.engine.render.merge import Merging
from syncline.engine.render.parking import Waiting
from syncline.engine.render.ranges import RangeStatements
from syncline.engine.render.recount import Recount
from syncline.engine.render.stage import stage_creation, stage_name
from syncline.engine.render.stubs import Stubs
from syncline.engine.render.tenants import deleted_keys_of, deleted_rows, of_same_tenant, source_rows
from syncline.engine.table_map import SchemaMap, TableMap
from syncline.engine.template import sql
from syncline.engine.unique_values import ClaimStatements
from syncline.maps.one_tenant import tenant_of
from syncline.sql import array_text, literal, quoted, string_literal
from syncline.stores.horizon import HORIZON, OLDEST_WRITER, horizon_holder

__all__ = [
    "DELETES",
    "POSITIONS",
    "SYNC_COLUMN",
    "Cursor",
    "Load",
    "SchemaStatements",
    "TableStatements",
    "deleted_keys",
    "positions_of",
]

DELETES = "sync_tombstone"
"""The table of deleted keys, and the name of its stream among the cursors."""
POSITIONS = "sync_position"
"""The table of positions (syncline.engine.position)."""
SYNC_COLUMN = "sync_xid"


def deleted_keys(schema: str) -> str:
    """Return the table of deleted keys, qualified and quoted."""
    return f"{quoted(schema)}.{quoted(DELETES)}"


def positions_of(schema: str) -> str:
    """Return the table of positions, qualified and quoted."""
    return f"{quoted(schema)}.{quoted(POSITIONS)}"


@dataclass(frozen=True, kw_only=True)
class Cursor:
    """Capture position of a table. Without a key: all transactions before `xid` are done."""

    xid: int = 0
    key: tuple[str, ...] | None = None

    @property
    def end(self) -> int:
        """The transaction below which everything was read; the one that is read in part is below it."""
        return self.xid if self.key is None else self.xid + 1

    @property
    def readable(self) -> bool:
        """Whether the key is valid text, usable as a parameter and stored as is."""
        return self.key is None or is_text(self.key)

    def parameters(self) -> tuple[str, ...]:
        """Return the statement parameters for `TableStatements.after_cursor`."""
        key = self.key or ()
        return (str(self.xid), *(key if self.readable else hex_of(key)))

    def stored(self) -> list[str] | list[list[str]] | None:
        """Return the key as stored in `sync_cursor`: a binary key as two dimensions of hex."""
        if self.key is None:
            return None
        return list(self.key) if self.readable else [hex_of(self.key)]

    @classmethod
    def of_stored(cls, xid: int, key: Sequence[str] | Sequence[Sequence[str]] | None) -> "Cursor":
        """Return the cursor from its stored form."""
        if key is None:
            return cls(xid=xid)
        texts = [part for part in key if isinstance(part, str)]
        return cls(xid=xid, key=tuple(texts) if len(texts) == len(key) else of_hex(key[0]))


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is left of the rows that a table had when it was first read, or is read again as a whole."""

    cursor: Cursor
    """How far they were read. The table's own cursor finds what was written since."""
    below: int
    """They are the rows of transactions below this one."""


class TableStatements:
    """All statements of one table, rendered once."""

    def __init__(self, schema_map: SchemaMap, table: TableMap) -> None:
        self.table = table
        self.stage_name = stage_name(schema_map, table)
        self.stage = f"pg_temp.{quoted(self.stage_name)}"
        self.key_order = commas(
            [ordered(type_, quoted(column)) for column, type_ in zip(table.key, table.key_types, strict=True)]
        )
        self.key = commas([f"s.{quoted(column)}" for column in table.key])
        self.row_id = row_id(table)
        names = stage_columns(table)
        self.stage_columns = ["sync_xid", "sync_present", *names]
        self._selection = selection(table)
        self.create_stage = stage_creation(schema_map, table, self.stage)
        self.drop_stage = sql("stage_drop", stage=self.stage)
        # Arrays too: how many members one has by them, Postgres 17 and later know.
        counted = [*generated_columns(table), *dict.fromkeys(quoted(links.source) for links in table.links)]
        self.analyze_stage = f"ANALYZE {self.stage} ({commas(counted)})"
        descending = commas(
            [
                f"{ordered(type_, cast(type_, f's.{quoted(column)}'))} DESC"
                for column, type_ in zip(table.key, table.key_types, strict=True)
            ]
        )
        self.last_staged = sql("stage_last", stage=self.stage, key=self.key, key_descending=descending)
        self.staged_tids = f"SELECT ctid FROM {self.stage} WHERE sync_present ORDER BY ctid"
        # Rejected rows leave the stage; their data goes to the dead letters.
        self.take_out = (
            f"DELETE FROM {self.stage} s WHERE ctid = ANY ($1::tid[])"
            f" RETURNING s.ctid, {self.row_id} AS row_id, to_json(ARRAY[{self.key}])::text AS key, s.sync_xid"
        )
        self.absent = sql(
            "gone_absent", stage=self.stage, table=literal(table.name), row_id=self.row_id, key=self.key
        )
        self.missing = sql("gone_missing", stage=self.stage, table=literal(table.name), row_id=self.row_id)
        self.resolve_dead_letters = sql(
            "resolve_dead_letters", stage=self.stage, of_table=of_table(table), row_id=self.row_id
        )
        self.retry_held = sql("retry_held", stage=self.stage, table=literal(table.name), row_id=self.row_id)
        self.merging = Merging(schema_map, table, self.stage)
        self.claims = ClaimStatements(
            schema_map, table, self.stage, written=self.merging.written, here=self.merging.here
        )
        self.waiting = Waiting(schema_map, table, self.stage)
        self.listing = Listing(schema_map, table, self.stage)
        self.stubs = Stubs(schema_map, table, self.stage)
        self.ranges = RangeStatements(schema_map, table, self.stage, self.merging.here)
        self.kept_landed = landed(schema_map, table, self.stage, self.merging.here)

    def capture_range(self, schema: str, cursor: Cursor, upto: Cursor, *, below: int, limit: int) -> str:
        """Return the query of `capture_at` for rows up to another cursor, the row there with them."""
        return self._capture(schema, self._selection, cursor, limit, *_given(cursor, below), upto=upto)

    def key_at(self, schema: str, cursor: Cursor, upto: Cursor, *, below: int, place: int) -> str:
        """Return the query for stamp and key, as of `next_key`, of the row at this place after the cursor.

        The first row is at place 0. No row comes after `upto`.
        """
        return self._capture(
            schema,
            self._stamped_key(),
            cursor,
            1,
            *_given(cursor, below),
            upto=upto,
            offset=f" OFFSET {place}",
        )

    def after_cursor(self, cursor: Cursor, first_parameter: int) -> str:
        """Return the condition for rows after the cursor; parameters start at `first_parameter`."""
        return self._after(
            cursor, [f"${first_parameter + index}" for index in range(1 + len(self.table.key))]
        )

    def unread(self, cursor: Cursor, load: Load | None, first_parameter: int) -> str:
        """Return the condition for rows that no cycle has read; parameters: the cursor's, then the load's."""
        after = self.after_cursor(cursor, first_parameter)
        if load is None:
            return after
        left = self.after_cursor(load.cursor, first_parameter + len(cursor.parameters()))
        return f"({after} OR ({left} AND sync_xid < {string_literal(str(load.below))}::xid8))"

    def _after(self, cursor: Cursor, given: Sequence[str]) -> str:
        """Return the condition; `given` are the expressions for `cursor.parameters()`."""
        if cursor.key is None:
            return f"sync_xid >= {given[0]}::text::xid8"
        return f"(sync_xid, {self.key_order}) > ({self._place(cursor, given)})"

    def _place(self, cursor: Cursor, given: Sequence[str]) -> str:
        xid, *parts = (f"{value}::text" for value in given)
        values = list(parts)
        if not cursor.readable:
            values = [key_text(value) for value in values]
        values = [cast(type_, value) for type_, value in zip(self.table.key_types, values, strict=True)]
        return f"{xid}::xid8, {commas(values)}"

    def source(self, schema: str) -> str:
        """Return the source table, qualified and quoted."""
        return f"{quoted(schema)}.{quoted(self.table.source)}"

    def rows(self, schema: str, tenant: str | None = None) -> str:
        """Return the FROM item for the source rows that the graph may have, named like the source."""
        return source_rows(self.table, schema, value=tenant)

    def of_tenant(self, table: TableMap) -> "TableStatements":
        """Return the statements for one tenant's rows, by its map of the table: the stage has no others."""
        bound = copy(self)
        bound.table = table
        return bound

    def probe(self, schema: str, cursor: Cursor, first_parameter: int, tenant: str | None = None) -> str:
        """Return the expression that is true when rows are pending after the cursor."""
        return sql(
            "probe",
            source=self.rows(schema, tenant),
            after_cursor=self.after_cursor(cursor, first_parameter),
            key_order=self.key_order,
        )

    def capture(self, schema: str, cursor: Cursor, *, limit: int) -> str:
        """Return the COPY source query; parameters: the cursor's, then the horizon as text."""
        return self._capture(schema, self._selection, cursor, limit)

    def capture_at(self, schema: str, cursor: Cursor, *, horizon: int, limit: int) -> str:
        """Return the same query with its values: for a COPY the driver would ask the server to write them."""
        return self._capture(schema, self._selection, cursor, limit, *_given(cursor, horizon))

    def next_key(self, schema: str, cursor: Cursor) -> str:
        """Return the query for the first row's stamp and key (in bytes); same parameters."""
        return self._capture(schema, self._stamped_key(), cursor, 1)

    def _stamped_key(self) -> str:
        key = commas([key_bytes(key_source(self.table, column)) for column in self.table.key])
        return f"sync_xid::text::bigint AS sync_xid, ARRAY[{key}] AS key"

    def behind(self, schema: str, cursor: Cursor) -> str:
        """Return the query that counts what `capture` would read without a limit; same parameters."""
        return sql(
            "behind",
            source=self.rows(schema),
            after_cursor=self.after_cursor(cursor, 1),
            horizon=f"${1 + len(cursor.parameters())}::text::xid8",
        )

    def _capture(
        self,
        schema: str,
        selection: str,
        cursor: Cursor,
        limit: int,
        *given: str,
        upto: Cursor | None = None,
        offset: str = "",
    ) -> str:
        *after, horizon = given or [f"${number}" for number in range(1, 2 + len(cursor.parameters()))]
        within = self._after(cursor, after)
        if upto is not None and upto.key is not None:
            bound = self._place(upto, [string_literal(value) for value in upto.parameters()])
            within = f"{within} AND (sync_xid, {self.key_order}) <= ({bound})"
        return sql(
            "capture",
            selection=selection,
            source=self.rows(schema),
            name=quoted(self.table.source),
            after_cursor=within,
            horizon=f"{horizon}::text::xid8",
            key_order=self.key_order,
            limit=str(limit),
            offset=offset,
        )

    def capture_by_key(self, schema: str, *, readable: bool = True) -> str:
        """Return the COPY source query for given keys; parameters: one text array per key column.

        Unless all keys are `readable`, each part is given in hex.
        """
        names = [f"k{index}" for index in range(len(self.table.key))]
        given = names if readable else [key_text(name) for name in names]
        types = self.table.key_types
        return sql(
            "capture_by_key",
            selection=self._selection,
            source=self.rows(schema),
            key=commas([compared(self.table, column) for column in self.table.key]),
            given=commas([safe(type_, name) for type_, name in zip(types, given, strict=True)]),
            parameters=commas([f"${index + 1}::text[]" for index in range(len(names))]),
            names=commas(names),
        )


def _given(cursor: Cursor, horizon: int) -> list[str]:
    """Return the parameters of a capture, as literals."""
    return [string_literal(value) for value in (*cursor.parameters(), str(horizon))]


class SchemaStatements:
    """All statements of one graph's tables."""

    def __init__(self, schema_map: SchemaMap) -> None:
        self.schema_map = schema_map
        self.tables = {table.name: TableStatements(schema_map, table) for table in schema_map}
        self.comparisons = {table.name: Comparison(schema_map, table) for table in schema_map}
        self.removal = Removal(schema_map)
        self.recount = Recount(schema_map)
        self.map_hash = map_hash(schema_map)
        self._pending: dict[tuple[object, ...], str] = {}

    def of_tenant(self, schema_map: SchemaMap) -> "SchemaStatements":
        """Return the statements for one tenant's rows, by its map: nothing of them is rendered again."""
        bound = copy(self)
        bound.schema_map, bound.map_hash = schema_map, map_hash(schema_map)
        bound.tables = {table.name: self.tables[table.name].of_tenant(table) for table in schema_map}
        bound.comparisons = {
            table.name: self.comparisons[table.name].of_tenant(table) for table in schema_map
        }
        return bound

    def pending(
        self,
        schema: str,
        cursors: Mapping[str, Cursor],
        tables: Sequence[str],
        *,
        positions: bool = False,
        crashes: bool = False,
        whole: bool = False,
    ) -> tuple[str, list[str]]:
        """Return (query, parameters): which of the tables have rows after their cursors.

        The last flags are for the deleted keys. The query is schema-qualified: an idle cycle runs it once and
        sets no search_path. With `positions` the caller appends two parameters, the reader's id and the
        number of its position, and with `crashes` too it returns whether the server has recovered from one
        since; with `whole` it returns how each source is captured, not only whether that has
        changed.
        """
        asked = [*tables, DELETES]
        parameters = [value for name in asked for value in cursors[name].parameters()]
        tenant = tenant_of(self.schema_map)
        if tenant is not None:
            # A parameter, so that the text is one for all tenants.
            parameters.insert(0, tenant.value)
        # An idle cycle is little more than this query: its text is cached for each shape of the cursors.
        ways = ((name, cursors[name].key is None, cursors[name].readable) for name in asked)
        shape = (schema, positions, crashes, whole, *ways)
        if shape not in self._pending:
            self._pending[shape] = self._render_pending(schema, cursors, tables, positions, crashes, whole)
        return self._pending[shape], parameters

    def _render_pending(
        self,
        schema: str,
        cursors: Mapping[str, Cursor],
        tables: Sequence[str],
        positions: bool,
        crashes: bool,
        whole: bool,
    ) -> str:
        probes: list[str] = []
        tenant = None if tenant_of(self.schema_map) is None else "$1::text"
        first = 1 if tenant is None else 2
        for name in tables:
            probes.append(self.tables[name].probe(schema, cursors[name], first, tenant))
            first += len(cursors[name].parameters())
        tombstones = deleted_keys(schema)
        deleted = deleted_rows(tenant_of(self.schema_map), tombstones, value=tenant, name="d")
        probes.append(
            sql(
                "probe",
                source=deleted,
                after_cursor=self.rows_after_deleted(cursors[DELETES], first),
                key_order="seq",
            )
        )
        first += len(cursors[DELETES].parameters())
        known = (
            sql(
                "position_known" if tenant is None else "tenant_position_known",
                positions=positions_of(schema),
                reader=f"${first}::text::uuid",
                number=f"${first + 1}::text::bigint",
                tenant=tenant or "",
                recovered=sql("position_recovered") if crashes else "NULL::timestamptz",
            )
            if positions
            else "NULL::text"
        )
        sources = [self.tables[name].rows(schema, tenant) for name in tables]
        ahead = ",\n".join(sql("ahead", source=source) for source in (*sources, deleted))
        return sql(
            "pending",
            horizon=HORIZON,
            holder=horizon_holder("moment.horizon"),
            oldest_writer=OLDEST_WRITER,
            probes=",\n".join(probes),
            ahead=ahead,
            tombstones=literal(tombstones),
            old_tombstones=sql(
                "old_tombstones" if tenant is None else "tenant_old_tombstones",
                tombstones=tombstones,
                kept=sql("kept"),
                tenant=tenant or "",
            ),
            captured=self._captured(schema, [self.tables[name].table for name in tables], whole=whole),
            known=known,
        )

    def _captured(self, schema: str, tables: Sequence[TableMap], *, whole: bool) -> str:
        """Return the query for how sources are captured: as hashes, and with `whole` as texts too."""
        columns = [list(dict.fromkeys([SYNC_COLUMN, *source_names(table)])) for table in tables]
        return sql(
            "captured",
            whole="how.text" if whole else "NULL::text",
            names=commas([f"'{literal(f'{quoted(schema)}.{quoted(table.source)}')}'" for table in tables]),
            columns=commas([f"'{literal(array_text(names))}'" for names in columns]),
        )

    def after_deleted(self, cursor: Cursor, first_parameter: int) -> str:
        """Return the condition for deleted keys after the cursor, like `TableStatements.after_cursor`."""
        return self._after_deleted(cursor, [f"${first_parameter}", f"${first_parameter + 1}"])

    def _after_deleted(self, cursor: Cursor, given: Sequence[str]) -> str:
        if cursor.key is None:
            return f"sync_xid >= {given[0]}::text::xid8"
        return f"(sync_xid, seq) > ({given[0]}::text::xid8, {given[1]}::text::bigint)"

    def rows_after_deleted(self, cursor: Cursor, first_parameter: int) -> str:
        """Return the condition for rows that have such a key, by the index; same parameters."""
        return self._rows_after_deleted(cursor, [f"${first_parameter}", f"${first_parameter + 1}"])

    def _rows_after_deleted(self, cursor: Cursor, given: Sequence[str]) -> str:
        if cursor.key is None:
            return self._after_deleted(cursor, given)
        xid, position = f"{given[0]}::text::xid8", f"{given[1]}::text::bigint"
        return sql("rows_after", xid=xid, position=position).strip()

    def sources(self, schema: str, tables: Sequence[str]) -> list[str]:
        """Return the tables' sources and the deleted keys, each once, qualified and quoted."""
        named = [self.tables[name].source(schema) for name in tables]
        return list(dict.fromkeys([*named, deleted_keys(schema)]))

    def capture_deleted_at(self, schema: str, cursor: Cursor, *, horizon: int, limit: int) -> str:
        """Return the COPY source query for deleted keys, with its values as `TableStatements.capture_at`."""
        given = _given(cursor, horizon)
        return sql("capture_deletes", limit=str(limit), **self._deleted(schema, cursor, limit, given))

    def next_deleted(self, schema: str, cursor: Cursor) -> str:
        """Return the query for the first of them, with its source and its key in bytes.

        Parameters: the cursor's, then the horizon.
        """
        given = [f"${number}" for number in range(1, 2 + len(cursor.parameters()))]
        return sql(
            "next_delete",
            source_bytes=key_bytes("d.source_table"),
            part_bytes=key_bytes("k.part"),
            **self._deleted(schema, cursor, 1, given),
        )

    def _deleted(self, schema: str, cursor: Cursor, limit: int, given: Sequence[str]) -> dict[str, str]:
        cases = [
            sql(
                "alive",
                source_name=literal(table.source),
                source=f"{quoted(schema)}.{quoted(table.source)}",
                same_key=" AND ".join(
                    same_key(table, column, index) for index, column in enumerate(table.key, start=1)
                )
                + of_same_tenant(table),
            ).strip()
            for table in self.schema_map
        ]
        horizon = f"{given[-1]}::text::xid8"
        return {
            "tombstones": deleted_keys_of(
                tenant_of(self.schema_map),
                deleted_keys(schema),
                rows=f"{self._rows_after_deleted(cursor, given)} AND sync_xid < {horizon}",
                limit=limit,
            ),
            "cases": " ".join(cases),
            "after_cursor": self._after_deleted(cursor, given),
        }
