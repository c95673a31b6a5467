"""In-flight rows: rows that are pending, parked or rejected, and so need not be equal."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from syncline.engine.keys import bytes_of, key_bytes, key_of_bytes, reading_of, row_uuid
from syncline.engine.render.fragments import commas, key_source, travels
from syncline.engine.render.identity import Identity
from syncline.engine.render.statements import (
    DELETES,
    Cursor,
    Load,
    SchemaStatements,
    TableStatements,
    deleted_keys,
)
from syncline.engine.render.tenants import bound_tenant, deleted_keys_of, source_rows
from syncline.engine.table_map import Reference, SchemaMap, TableMap
from syncline.sql import literal, quoted, statements_of
from syncline.verify.checksums import RowChecksums, key_uuid, own_id
from syncline.verify.snapshots import Snapshots

__all__ = ["Captured", "InFlight", "Refused", "find_refused"]

_sql = statements_of("syncline.verify")


class Captured:
    """FROM items with row `s`, and its id as `sync_row_id`.

    Expressions are evaluated only for captured rows that were not rejected: evaluating a rejected row would
    raise its error again and prevent comparing the table.
    """

    def __init__(
        self,
        schema: str,
        statements: TableStatements,
        images: RowChecksums,
        cursor: Cursor,
        load: Load | None,
        refused: Sequence[Sequence[str]],
    ) -> None:
        """Store the write-db's schema, how far the table was read, and the keys that were `refused`."""
        self.schema = schema
        self._statements, self._images = statements, images
        self._cursor, self._load = cursor, load
        self._columns = [[bytes_of(part) for part in column] for column in zip(*refused, strict=True)]
        self.read = (*cursor.parameters(), *(() if load is None else load.cursor.parameters()))
        """Parameters of `coming`."""
        self.parameters = (*self.read, *self._columns)
        """Parameters of `passed`, from its first parameter on."""
        self._key = [travels(statements.table, column) for column in statements.table.key]

    @property
    def key(self) -> str:
        """The key parts of row `s`, in bytes."""
        return commas([key_bytes(f"s.{quoted(column)}") for column in self._statements.table.key])

    def passed(self, first_parameter: int) -> str:
        """Return the rows that belong in the target, as they would be staged."""
        captured = f"NOT ({self._statements.unread(self._cursor, self._load, first_parameter)})"
        if self._columns:
            first = first_parameter + len(self.read)
            captured += " AND " + _sql(
                "not_refused",
                key=commas(
                    [
                        key_bytes(key_source(self._statements.table, column))
                        for column in self._statements.table.key
                    ]
                ),
                parameters=commas([f"${first + place}::bytea[]" for place in range(len(self._columns))]),
            )
        table = self._statements.table
        return _sql(
            "passed",
            row_id=self._images.source_id,
            columns=commas(self._images.source_columns),
            source=self._statements.rows(self.schema),
            name=quoted(table.source),
            captured=captured,
            present=table.present,
        )

    def coming(self, first_parameter: int) -> str:
        """Return the rows that no cycle has read, keys only."""
        table = self._statements.table
        return _sql(
            "coming",
            row_id=own_id([key_uuid(f"s.{quoted(column)}") for column in table.key]),
            key=commas(
                [f"{part} AS {quoted(column)}" for part, column in zip(self._key, table.key, strict=True)]
            ),
            source=self._statements.rows(self.schema),
            beyond=self._statements.unread(self._cursor, self._load, first_parameter),
        )

    def deleted(self, cursor: Cursor, first_parameter: int, statements: SchemaStatements) -> str:
        """Return the query for the table's deleted keys after a cursor: `row_id`, `key` in bytes."""
        table = self._statements.table
        row_id = own_id([key_uuid(f"d.key[{part + 1}]") for part in range(len(table.key))])
        key = commas([key_bytes(f"d.key[{part + 1}]") for part in range(len(table.key))])
        return _sql(
            "deleted",
            row_id=row_id,
            key=key,
            tombstones=deleted_keys_of(
                bound_tenant(table),
                deleted_keys(self.schema),
                rows=f"source_table = '{literal(table.source)}'"
                f" AND {statements.rows_after_deleted(cursor, first_parameter)}",
            ),
            beyond=statements.after_deleted(cursor, first_parameter),
        )


_FEW = 20_000
"""In-flight rows excluded from the sums; with more, hardly a bucket would be equal without them."""


class InFlight:
    """The in-flight rows of a table. Rows with parked references count if `waiting` contains the name."""

    def __init__(
        self,
        snapshots: Snapshots,
        statements: SchemaStatements,
        captured: Captured,
        *,
        table: TableMap,
        waiting: Sequence[str],
    ) -> None:
        self._snapshots, self._captured = snapshots, captured
        deletes = snapshots.cursors[DELETES]
        self._parameters = [*captured.read, *deletes.parameters()]
        self._deleted_beyond = captured.deleted(deletes, 1 + len(captured.read), statements)
        self.deleted_parameters = deletes.parameters()
        self.deleted = f"{captured.deleted(deletes, 1, statements)} ORDER BY 1"
        """Query for keys whose deletion no cycle has read: `row_id`, `key`."""
        entries = _sql(
            "state_entries",
            table=literal(table.name),
            stuck=_stuck(statements.schema_map, table),
            names=", ".join(f"'{literal(name)}'" for name in waiting) or "NULL",
        )
        self._ids = _sql("known", entries=entries, limit=str(_FEW + 1))
        self.entries = f"{entries} ORDER BY 1"
        """Query for what the bookkeeping tables know of them: `row_id`, `key`, `kind`, `stuck`."""

    async def few(self) -> list[UUID] | None:
        """Return their ids, or None if there are too many."""
        known = await self._snapshots.target.fetch(self._ids)
        if len(known) > _FEW:
            return None
        query = _sql(
            "beyond",
            rows=self._captured.coming(1),
            deleted=self._deleted_beyond,
            limit=str(_FEW + 1),
        )
        coming = await self._snapshots.write.fetch(query, *self._parameters)
        ids = {row["row_id"] for row in (*known, *coming)}
        return list(ids) if len(coming) <= _FEW else None


@dataclass(frozen=True, kw_only=True)
class Refused:
    """The rows of a table that the graph-db rejected, unless there are too many to name."""

    keys: Sequence[Sequence[str]] = ()
    still_there: frozenset[UUID] = frozenset()
    """Ids of those that the write-db still has."""


async def find_refused(snapshots: Snapshots, table: TableMap) -> Refused:
    """Return a table's rejected rows."""
    letters = await snapshots.target.fetch(_sql("refused"), table.name, _FEW + 1)
    if not letters or len(letters) > _FEW:
        return Refused()
    keys = [reading_of(row["key"], row["row_id"]) for row in letters]
    query = _sql(
        "still_there",
        key=commas([key_bytes(key_source(table, column)) for column in table.key]),
        source=source_rows(table, snapshots.schema),
        parameters=commas([f"${place + 1}::bytea[]" for place in range(len(table.key))]),
    )
    columns = [[bytes_of(part) for part in column] for column in zip(*keys, strict=True)]
    there = await snapshots.write.fetch(query, *columns)
    return Refused(keys=keys, still_there=frozenset(row_uuid(key_of_bytes(row["key"])) for row in there))


def _stuck(schema_map: SchemaMap, table: TableMap) -> str:
    """Return the condition that parked row `r` waits for a parent that exists."""
    conditions = [
        _landed(Identity(schema_map, schema_map[reference.parent]), reference, table.required)
        for reference in table.required
    ]
    return " OR ".join(dict.fromkeys(conditions)) or "false"


def _landed(identity: Identity, reference: Reference, required: Sequence[Reference]) -> str:
    by_key = any(other.parent == reference.parent and other.by is None for other in required)
    same = identity.is_landed("p", "r.waits_for_key", identity.parked() if identity.table.identified else "")
    if reference.by is not None:
        # A table that refers to its parent in both ways does not record which one a row waits for.
        by = f"p.{quoted(reference.by)}"
        same = "false" if by_key else f'{by} = r.waits_for_key AND {by}::text COLLATE "C" = r.waits_for_key'
    parent, name = quoted(reference.parent), literal(reference.parent)
    return f"r.waits_for_table = '{name}' AND EXISTS (SELECT FROM {parent} p WHERE {same})"
