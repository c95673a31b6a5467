"""Stage: the temporary table of a batch, with the ids of its rows and of what they refer to."""

import re
from collections.abc import Iterator
from hashlib import sha256
from typing import Final

from syncline.engine.keys import stage_type
from syncline.engine.render.fragments import column_types, commas, reference_id, stage_columns, stages_row_id
from syncline.engine.render.identity import Identity, row_hash
from syncline.engine.table_map import SchemaMap, TableMap
from syncline.engine.template import sql
from syncline.sql import literal, quoted

__all__ = ["stage_creation", "stage_definitions", "stage_name"]

_BUILT_IN: Final = re.compile(
    r"(text|uuid|jsonb?|bytea|date|boolean|bool|smallint|integer|int[248]?|bigint|numeric|decimal|real"
    r"|float[48]?|double precision|(var|bp)?char|character( varying)?"
    r"|time(stamp)?(tz| with(out)? time zone)?|interval|inet)"
    r"\s*(\([\d\s,]*\))?(\s*\[\d*\])*",
    re.IGNORECASE,
)
"""Types of which no schema has one of its own; one that is not found here costs a look at the stage."""


def stage_creation(schema_map: SchemaMap, table: TableMap, stage: str) -> str:
    """Return the statement that makes the stage, unless the connection has it.

    A connection serves graphs of several schemas, each of which may have a type of the same name.
    """
    create = sql("stage_create", stage=stage, definitions=stage_definitions(schema_map, table))
    types = column_types(table)
    spelled = {name: stage_type(name, types) for name in stage_columns(table)}
    own = [
        f"('{literal(name)}', '{literal(type_)}')"
        for name, type_ in spelled.items()
        if not _BUILT_IN.fullmatch(type_.strip())
    ]
    if not own:
        return create
    drop = sql("stage_of_other_types", stage=stage, name=literal(stage), types=commas(own)).strip()
    return f"{drop}; {create}"


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
        if stages_row_id(table):
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
            named = parent.named_by(table, reference, quoted(reference.column))
            parts = parent.split(named)
            made = ("uuid", row_hash(parts))
            if parent.table.identified:
                made = (parent.table.id_type.native, parent.derived(parts))
            yield reference_id(reference.column), *made


def stage_name(schema_map: SchemaMap, table: TableMap) -> str:
    """Return the stage's name, which differs for every layout."""
    # A pooled connection keeps its stages, so another layout of the same table needs another name. The
    # table's name comes last, because Postgres truncates long names.
    layout = sha256(f"{table.name} {stage_definitions(schema_map, table)}".encode()).hexdigest()[:12]
    return f"stage_{layout}_{table.name}"
