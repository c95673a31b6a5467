"""SQL fragments that several statements share: merged values, link table names, the vector outbox."""

from collections.abc import Callable, Collection, Sequence

from syncline.engine.key_forms import form, read, safe
from syncline.engine.keys import stage_type, traveling
from syncline.engine.table_map import Column, Links, Reference, SchemaMap, TableMap
from syncline.engine.template import sql
from syncline.maps.ids import IdRule
from syncline.maps.into import without_row
from syncline.maps.key_types import TEXT, KeyType, Kind
from syncline.sql import literal, quoted

__all__ = [
    "Rendered",
    "column",
    "column_types",
    "commas",
    "compared",
    "differs_from_none",
    "generated_columns",
    "image",
    "image_texts",
    "image_values",
    "key_source",
    "link_names",
    "merged_values",
    "named_together",
    "of_table",
    "parts_together",
    "reference_id",
    "row_id",
    "same_key",
    "selection",
    "source_names",
    "stage_columns",
    "stages_row_id",
    "together",
    "travels",
    "unrejected",
]

_USUAL = ("id", "key")
_ALWAYS = ("sync_xid",)
"""The engine's own columns that an image contains."""


def commas(parts: Sequence[str]) -> str:
    """Join the parts into an SQL list."""
    return ", ".join(parts)


def column(name: str) -> str:
    """Return a column's name in quotes; without them if it is one of the usual names of an id or a key."""
    return name if name in _USUAL else quoted(name)


def reference_id(column: str) -> str:
    """Return the stage column that holds a reference's UUID."""
    return quoted(f"ref_{column}")


def row_id(table: TableMap, row: str = "s") -> str:
    """Return the expression for a staged row's id in the bookkeeping tables."""
    if stages_row_id(table):
        return f"{row}.sync_row_id"
    if table.identified:
        return f"syncline.key_uuid({row}.{quoted(table.key[0])})"
    return f"syncline.row_uuid(ARRAY[{commas([f'{row}.{quoted(name)}' for name in table.key])}])"


def stages_row_id(table: TableMap) -> bool:
    """Return whether the stage has its rows' ids in the bookkeeping tables.

    Where the key is the id, only what waits, or was rejected, is known by another, made when asked for.
    """
    return table.identified and (table.listed or table.id_rule is not IdRule.SAME)


def of_table(table: TableMap) -> str:
    """Return the table's name as an expression over a staged row `s`."""
    return sql("of_table", table=literal(table.name)).strip()


def column_types(table: TableMap) -> dict[str, str]:
    """Return the types of staged columns; all others are text, as keys and references are of any type."""
    types = table.staged
    if table.id is not None and table.id.source is not None:
        types.setdefault(table.id.source, table.id_type.name)
    types |= {links.source: table.types.get(links.source, "text[]") for links in table.links}
    return {name: type_ for name, type_ in types.items() if name not in table.key_texts}


def named_together(schema_map: SchemaMap, table: TableMap) -> bool:
    """Return whether other tables refer to a table by several columns."""
    return any(one.columns and one.parent == table.name for child in schema_map for one in child.references)


def stage_columns(table: TableMap) -> list[str]:
    """Return the source columns that are copied, each once, keys first."""
    names = [
        *table.key,
        *(reference.column for reference in table.references),
        *table.staged,
        *([table.id.source] if table.id is not None and table.id.source is not None else []),
        *(links.source for links in table.links),
    ]
    return list(dict.fromkeys(names))


def source_names(table: TableMap) -> list[str]:
    """Return the source columns on which the target depends: those that are copied, and the tenant."""
    tenant = table.of_tenant
    together = {reference.column: reference.columns for reference in table.references if reference.columns}
    names = [column for name in stage_columns(table) for column in together.get(name, (name,))]
    return list(dict.fromkeys([*names, *([] if tenant is None else [tenant.column])]))


def travels(table: TableMap, name: str) -> str:
    """Return the expression, over the source row, for a column's value as it is copied: a key in its form."""
    for reference in table.references:
        if reference.columns and reference.column == name:
            return together(table, reference)
    type_ = table.key_texts.get(name, TEXT)
    return traveling(name, column_types(table)) if type_.kind is Kind.TEXT else form(type_, quoted(name))


def parts_together(table: TableMap, reference: Reference) -> list[str]:
    """Return the expressions, over the source row, for the parts of the key that a reference names."""
    return [
        f"{quoted(name)}::text"
        if table.type_of(name).kind is Kind.TEXT
        else form(table.type_of(name), quoted(name))
        for name in reference.columns
    ]


def together(table: TableMap, reference: Reference) -> str:
    """Return the expression, over the source row, for a key of several columns as one text; NULL for none."""
    named = " AND ".join(f"{quoted(name)} IS NOT NULL" for name in reference.columns)
    return sql("together", named=named, parts=commas(parts_together(table, reference))).strip()


def same_key(table: TableMap, name: str, place: int) -> str:
    """Return the condition that a key column of source row `t` is a part of the deleted key `d`."""
    type_ = table.type_of(name)
    if type_.kind is Kind.TEXT:
        return sql("same_key", column=quoted(name), index=str(place))
    return f"t.{quoted(name)} = {safe(type_, f'd.key[{place}]')}"


def compared(table: TableMap, name: str) -> str:
    """Return the expression, over the source row, by which a key column is compared with given values."""
    return f"{quoted(name)}::text" if table.type_of(name).kind is Kind.TEXT else quoted(name)


def key_source(table: TableMap, name: str) -> str:
    """Return the expression, over the source row, for a key column of which text or bytes are made."""
    type_ = table.type_of(name)
    return quoted(name) if type_.kind is Kind.TEXT else form(type_, quoted(name))


def selection(table: TableMap) -> str:
    """Return the select list that copies source rows into the stage."""
    values = [f"{travels(table, name)} AS {quoted(name)}" for name in stage_columns(table)]
    belongs = f"({table.present}) IS TRUE AS sync_present"
    return commas(["sync_xid::text::bigint AS sync_xid", belongs, *values])


def generated_columns(table: TableMap) -> list[str]:
    """Return the stage's generated id columns."""
    own = ["sync_row_id"] if stages_row_id(table) else []
    own += ["sync_id"] if table.identified and not table.hashed else []
    return own + [reference_id(reference.column) for reference in table.references]


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


def merged_values(
    table: TableMap,
    *,
    typed: Callable[[KeyType, str], str] = read,
    known: Collection[str] | None = None,
) -> dict[str, str]:
    """Return target column -> expression over the staged row `s`, without the engine's own columns.

    `typed` makes a key's value from its text form; values are cast to `known` types, all if None.
    """
    values: dict[str, str] = {}
    if table.identified:
        values[table.id_column] = "s.sync_row_id" if table.hashed else "s.sync_id"
    if table.key_column is not None:
        values[table.key_column] = typed(table.key_types[0], f"s.{quoted(table.key[0])}")
    for name, type_ in table.own_parts.items():
        values[name] = typed(type_, f"s.{quoted(name)}")
    values |= {reference.target_column: f"s.{reference_id(reference.column)}" for reference in table.filled}
    for each in table.columns:
        values[each.name] = _value(table, each, typed, known)
    return values | dict(table.expressions)


def _value(
    table: TableMap, each: Column, typed: Callable[[KeyType, str], str], known: Collection[str] | None
) -> str:
    if each.value is not None:
        value, type_ = f"({each.value})", None
    else:
        [name] = each.sources
        value, type_ = f"s.{quoted(name)}", column_types(table).get(name)
        if name in table.key_texts:
            value, type_ = typed(table.key_texts[name], value), table.key_texts[name].name
            if each.copied:
                return value
    wanted = stage_type(each.name, {each.name: each.type})
    if type_ == each.type or (known is not None and wanted not in known):
        return value
    return f"({value})::{wanted}"


def differs_from_none(table: TableMap) -> str:
    """Return the condition that a target row `t` has values of a source row of a table map with `into`.

    A source row with the values of none cannot be told from none, and need not be.
    """
    both = [
        commas(
            [
                f"CASE WHEN {which} THEN t.{quoted(name)} ELSE {value} END"
                for name, value in without_row(table).items()
            ]
        )
        for which in ("true", "false")
    ]
    return f"ROW({both[0]})::record OPERATOR(pg_catalog.*<>) ROW({both[1]})::record"


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
