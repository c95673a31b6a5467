"""Made from a map: source tables, and rows for them that refer to each other by their numbers."""

from collections.abc import Iterator, Mapping

from syncline.capture.install.checks import source_columns
from syncline.engine.key_forms import form
from syncline.engine.render.fragments import column_types
from syncline.maps.key_types import KeyType, Kind, key_type
from syncline.maps.schema_map import SchemaMap
from syncline.maps.table_map import TableMap
from syncline.sql import quoted

__all__ = ["delete_rows", "insert_rows", "key_condition", "key_value", "source_tables"]

_KEYS: Mapping[Kind, str] = {
    Kind.TEXT: "'k' || ({n})",
    Kind.UUID: "md5('k' || ({n}))::uuid",
    Kind.INTEGER: "({n})",
    Kind.NUMERIC: "({n})",
    Kind.DATE: "(date '2020-01-01' + ({n})::int)",
    Kind.TIMESTAMP: "(timestamp '2020-01-01' + ({n}) * interval '1 h')",
    Kind.TIMESTAMPTZ: "(timestamptz '2020-01-01 00:00+00' + ({n}) * interval '1 h')",
    Kind.BYTES: "decode(lpad(to_hex(({n})::int), 8, '0'), 'hex')",
}
_VALUES: Mapping[str, str] = {
    "boolean": "i % 2 = 0",
    "json": "json_build_object('of', i)",
    "jsonb": "jsonb_build_object('of', i)",
    "double precision": "i + 0.5",
    "real": "i + 0.5",
}


def source_tables(schema_map: SchemaMap) -> Iterator[str]:
    """Yield the DDL of the source tables: what the map names, with the key as primary key."""
    made: set[str] = set()
    for table in schema_map:
        if table.source in made:
            continue
        made.add(table.source)
        columns = [f"{quoted(name)} {type_}" for name, type_ in _columns(table).items()]
        key = ", ".join(map(quoted, table.key))
        yield f"CREATE TABLE {quoted(table.source)} ({', '.join(columns)}, PRIMARY KEY ({key}));"


def insert_rows(
    schema_map: SchemaMap, table: TableMap, first: int, last: int, values: Mapping[str, str]
) -> str:
    """Return the statement that inserts the rows with these numbers.

    Row i refers to the rows i of other tables, and to row i - 1 of its own. `values` are SQL over i, by
    source table and column, where they are to be others.
    """
    made = {name: _value(schema_map, table, name, type_) for name, type_ in _columns(table).items()}
    prefix = f"{table.source}."
    made |= {name.removeprefix(prefix): sql for name, sql in values.items() if name.startswith(prefix)}
    columns = ", ".join(map(quoted, made))
    return (
        f"INSERT INTO {quoted(table.source)} ({columns})"  # noqa: S608 - a test's own tables
        f" SELECT {', '.join(made.values())} FROM generate_series({first}, {last}) i;"
    )


def delete_rows(table: TableMap, first: int, last: int) -> str:
    """Return the statement that deletes the rows with these numbers."""
    conditions = " OR ".join(f"({key_condition(table, number)})" for number in range(first, last + 1))
    return f"DELETE FROM {quoted(table.source)} WHERE {conditions};"  # noqa: S608


def key_condition(table: TableMap, number: int) -> str:
    """Return the condition that a source row has this number."""
    # Other columns of a key may come from the author's values.
    name = table.key[0]
    return f"{quoted(name)} = {key_value(table.type_of(name), str(number))}"


def key_value(type_: KeyType, number: str) -> str:
    """Return the key of the row with this number."""
    value = _KEYS[type_.kind].format(n=number)
    return f"({value})::{type_.name}"


def _columns(table: TableMap) -> dict[str, str]:
    return source_columns(table) | {name: table.types.get(name, "text[]") for name in table.element_types}


def _value(schema_map: SchemaMap, table: TableMap, name: str, type_: str) -> str:
    for links in table.links:
        if links.source == name:
            parent = schema_map[links.parent].key_types[0]
            members = ", ".join(form(parent, key_value(parent, number)) for number in ("i", "1 + i % 7"))
            return f"to_jsonb(ARRAY[{members}])" if table.is_json(name) else f"ARRAY[{members}]::{type_}"
    for reference in table.references:
        if reference.columns:
            if name in reference.columns and name not in table.key:
                part = schema_map[reference.parent].key_types[reference.columns.index(name)]
                return f"({key_value(part, 'i')})::{type_}"
            continue
        if reference.column != name:
            continue
        if reference.by is not None:
            return _text(reference.by)
        parent = schema_map[reference.parent].key_types[0]
        number = "i - 1" if reference.parent == table.name else "i"
        return (
            f"({form(parent, key_value(parent, number))})::{type_}"
            if type_ == "text"
            else (f"({key_value(parent, number)})::{type_}")
        )
    if name in table.key:
        return key_value(table.type_of(name), "i")
    spelled = column_types(table).get(name, type_).lower()
    if spelled == "text":
        return _text(name)
    if spelled in _VALUES:
        return f"({_VALUES[spelled]})::{type_}"
    known = key_type(spelled)
    if known is None:
        return f"ARRAY['a' || i]::{type_}" if spelled in ("text[]", "varchar[]") else "NULL"
    return key_value(known, "i")


def _text(name: str) -> str:
    return f"'{name.replace(chr(39), chr(39) * 2)} ' || i"
