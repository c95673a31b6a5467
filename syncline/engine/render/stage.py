"""Stage: the temporary table of a batch, with the ids of its rows and of what they refer to."""

from collections.abc import Iterator
from hashlib import sha256

from syncline.engine.keys import stage_type
from syncline.engine.render.fragments import column_types, commas, reference_id, stage_columns
from syncline.engine.render.identity import Identity, row_hash
from syncline.engine.table_map import SchemaMap, TableMap
from syncline.sql import quoted

__all__ = ["stage_definitions", "stage_name"]


def stage_definitions(schema_map: SchemaMap, table: TableMap) -> str:
    """Return the stage's columns as DDL."""
    types = column_types(table)
    columns = ["sync_xid bigint NOT NULL", "sync_present boolean NOT NULL"]
    columns += [f"{quoted(name)} {stage_type(name, types)}" for name in stage_columns(table)]
    # A reference by value has to be looked up; so has one to a row whose id does not follow from its key.
    columns += [
        f"{reference_id(reference.column)} {schema_map[reference.parent].id_type.native}"
        for reference in table.references
        if reference.by is not None or schema_map[reference.parent].looked_up
    ]
    columns += [f"sync_id {table.id_type.native}"] if table.keeps_ids else []
    columns += [
        f"{name} {type_} GENERATED ALWAYS AS ({value}) STORED"
        for name, type_, value in _generated(schema_map, table)
    ]
    return commas(columns)


def _generated(schema_map: SchemaMap, table: TableMap) -> Iterator[tuple[str, str, str]]:
    key = [quoted(name) for name in table.key]
    if table.identified:
        own = Identity(schema_map, table)
        yield "sync_row_id", "uuid", row_hash(key)
        if table.keeps_ids:
            pass
        elif table.id is not None and table.id.source is not None:
            yield own.staged, table.id_type.native, quoted(table.id.source)
        elif not own.hashed and not table.looked_up:
            yield own.staged, table.id_type.native, own.derived(key)
    for reference in table.references:
        if reference.by is None and not schema_map[reference.parent].looked_up:
            parent = Identity(schema_map, schema_map[reference.parent])
            named = parent.referred(table.key_texts[reference.column], quoted(reference.column))
            yield reference_id(reference.column), parent.table.id_type.native, parent.derived([named])


def stage_name(schema_map: SchemaMap, table: TableMap) -> str:
    """Return the stage's name, which differs for every layout."""
    # A pooled connection keeps its stages, so another layout of the same table needs another name. The
    # table's name comes last, because Postgres truncates long names.
    layout = sha256(f"{table.name} {stage_definitions(schema_map, table)}".encode()).hexdigest()[:12]
    return f"stage_{layout}_{table.name}"
