"""SQL fragments that several statements share: merged values, link table names, the vector outbox."""

from collections.abc import Callable, Sequence
from hashlib import sha256

from syncline.engine.keys import stage_type, traveling
from syncline.engine.table_map import Links, SchemaMap, TableMap
from syncline.engine.template import sql
from syncline.sql import literal, quoted

__all__ = [
    "Rendered",
    "column_types",
    "commas",
    "generated_columns",
    "image",
    "image_texts",
    "image_values",
    "link_names",
    "merged_values",
    "of_table",
    "queue",
    "reference_id",
    "row_id",
    "selection",
    "stage_columns",
    "stage_definitions",
    "stage_name",
    "unrejected",
]

_ALWAYS = ("sync_xid",)
"""The engine's own columns that an image contains."""


def commas(parts: Sequence[str]) -> str:
    """Join the parts into an SQL list."""
    return ", ".join(parts)


def reference_id(column: str) -> str:
    """Return the stage column that holds a reference's UUID."""
    return quoted(f"ref_{column}")


def row_id(table: TableMap, row: str = "s") -> str:
    """Return the expression for a staged row's id in the bookkeeping tables."""
    if table.identified:
        return f"{row}.sync_row_id"
    return f"syncline.row_uuid(ARRAY[{commas([f'{row}.{quoted(name)}' for name in table.key])}])"


def of_table(table: TableMap) -> str:
    """Return the table's name as an expression over a staged row `s`."""
    return sql("of_table", table=literal(table.name)).strip()


def column_types(table: TableMap) -> dict[str, str]:
    """Return the declared types of source columns; all others are text."""
    types = {column.name: column.type for column in (*table.columns, *table.source_only)}
    return types | {links.source: "text[]" for links in table.links}


def stage_columns(table: TableMap) -> list[str]:
    """Return the source columns that are copied, each once, keys first."""
    names = [
        *table.key,
        *(reference.column for reference in table.references),
        *(column.name for column in (*table.columns, *table.source_only)),
        *(links.source for links in table.links),
    ]
    return list(dict.fromkeys(names))


def selection(table: TableMap) -> str:
    """Return the select list that copies source rows into the stage."""
    types = column_types(table)
    values = [f"{traveling(name, types)} AS {quoted(name)}" for name in stage_columns(table)]
    belongs = f"({table.present}) IS TRUE AS sync_present"
    return commas(["sync_xid::text::bigint AS sync_xid", belongs, *values])


def generated_columns(table: TableMap) -> list[str]:
    """Return the stage's generated id columns."""
    own = ["sync_row_id"] if table.identified else []
    return own + [reference_id(reference.column) for reference in table.references]


def stage_definitions(table: TableMap) -> str:
    """Return the stage's columns as DDL."""
    types = column_types(table)
    columns = ["sync_xid bigint NOT NULL", "sync_present boolean NOT NULL"]
    columns += [f"{quoted(name)} {stage_type(name, types)}" for name in stage_columns(table)]
    # A reference by value has to be looked up.
    columns += [f"{reference_id(r.column)} uuid" for r in table.references if r.by is not None]
    generated = [(reference_id(r.column), r.column) for r in table.references if r.by is None]
    if table.identified:
        generated.insert(0, ("sync_row_id", table.key[0]))
    columns += [
        f"{name} uuid GENERATED ALWAYS AS (syncline.key_uuid({quoted(source)})) STORED"
        for name, source in generated
    ]
    return commas(columns)


def stage_name(table: TableMap) -> str:
    """Return the stage's name, which differs for every layout."""
    # A pooled connection keeps its stages, so another layout of the same table needs another name. The
    # table's name comes last, because Postgres truncates long names.
    layout = sha256(f"{table.name} {stage_definitions(table)}".encode()).hexdigest()[:12]
    return f"stage_{layout}_{table.name}"


def image(table: TableMap) -> str:
    """Return the staged row `s` as jsonb: each column as the text from its type's output function.

    JSON values would lose detail: an object its repeated keys, a number its digits. Only rows that belong in
    the target are parked.
    """
    names = [*_ALWAYS, *stage_columns(table)]
    keys = commas([f"'{literal(name)}'" for name in names])
    return f"jsonb_object(ARRAY[{keys}], ARRAY[{commas([f's.{quoted(name)}::text' for name in names])}])"


def image_texts(table: TableMap) -> str:
    """Return an image's columns, as the definition of a record `r` of texts."""
    return commas([f"{quoted(name)} text" for name in (*_ALWAYS, *stage_columns(table))])


def image_values(table: TableMap) -> dict[str, str]:
    """Return stage column -> its value from record `r`, via its type's input function."""
    types = {"sync_xid": "bigint"} | column_types(table)
    names = [*_ALWAYS, *stage_columns(table)]
    return {"sync_present": "true"} | {name: f"r.{quoted(name)}::{stage_type(name, types)}" for name in names}


Rendered = Callable[[str], str]
"""A statement with its source of staged rows left open: a FROM item."""


def merged_values(table: TableMap) -> dict[str, str]:
    """Return target column -> expression over the staged row `s`, without the engine's own columns."""
    values = {"id": "s.sync_row_id", "key": f"s.{quoted(table.key[0])}"} if table.identified else {}
    values |= {
        reference.target_column: f"s.{reference_id(reference.column)}" for reference in table.references
    }
    values |= {column.name: f"s.{quoted(column.name)}" for column in table.columns}
    return values | dict(table.expressions)


def link_names(links: Links) -> dict[str, str]:
    """Return the fragments that name a link table and both its ends."""
    return {
        "links": quoted(links.table),
        "links_name": literal(links.table),
        "owner": quoted(links.owner),
        "member": quoted(links.member),
        "parent": quoted(links.parent),
        "parent_name": literal(links.parent),
    }


def unrejected(schema_map: SchemaMap, links: Links) -> str:
    """Return the WHERE clause over wanted links `d` that excludes rejected links, or an empty string."""
    if links.rejected_by is None:
        return ""
    owner, member = schema_map[links.rejected_by].target_key
    return sql(
        "unrejected",
        rejections=quoted(links.rejected_by),
        rejected_owner=quoted(owner),
        rejected_member=quoted(member),
    )


def queue(table: TableMap) -> str:
    """Return the part of a statement that puts rows `changed` into the outbox, or an empty string."""
    return sql("queue", collection=literal(table.vector.collection)) if table.vector else ""
