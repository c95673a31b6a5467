"""What a table map needs of the tables on both sides, as columns and types."""

from syncline.engine.layout import column_types, stage_columns
from syncline.engine.tablemap import SchemaMap, TableMap

__all__ = ["UUID", "source_columns", "source_keys", "target_columns", "types_of"]

UUID = "uuid"


def source_keys(schema_map: SchemaMap) -> dict[str, tuple[str, ...]]:
    """Return the source tables with their keys; of two maps over one table, the first one's."""
    keys: dict[str, tuple[str, ...]] = {}
    for table in schema_map:
        keys.setdefault(table.source, table.key)
    return keys


def source_columns(table: TableMap) -> dict[str, str]:
    """Return the columns of the source that travel, and their types as the map spells them."""
    types = column_types(table)
    return {name: types.get(name, "text") for name in stage_columns(table)}


def target_columns(table: TableMap) -> dict[str, str | None]:
    """Return the columns of the target that are written, and their types; None where an expression tells."""
    columns: dict[str, str | None] = {"id": UUID, "key": "text"} if table.identified else {}
    columns |= {column.name: column.type for column in table.columns}
    columns |= dict.fromkeys(table.expressions)
    columns |= {reference.target_column: UUID for reference in table.references}
    return columns | {"sync_version": "bigint", "sync_run": "bigint"}


def types_of(schema_map: SchemaMap) -> frozenset[str]:
    """Return every type as the map, or the engine, spells it."""
    own = {"text", "text[]", "bigint", "boolean", "xid8", "timestamptz", UUID, "uuid[]"}
    spelled = {column.type for table in schema_map for column in (*table.columns, *table.source_only)}
    return frozenset(own | spelled)
