"""Target tables: the DDL of the tables that a map writes to, for a graph-db that does not have them."""

from collections.abc import Iterator, Mapping

from syncline.capture.install.checks import target_columns
from syncline.maps.schema_map import SchemaMap
from syncline.maps.table_map import Links, Stat, Stats, TableMap
from syncline.sql import quoted

__all__ = ["target_tables"]


def target_tables(
    schema_map: SchemaMap, schema: str, *, types: Mapping[tuple[str, str], str]
) -> dict[str, str]:
    """Return table -> DDL, parents first.

    `types` are those of columns that only an expression determines, by table and column; text if it has none.
    """
    made: dict[str, str] = {}
    columns = {table.name: _columns(schema_map, table, types) for table in schema_map}
    for table in schema_map:
        if table.into is not None:
            continue
        made[table.name] = "\n".join(_table(schema, schema_map, table, columns[table.name], types))
        for links in table.links:
            made[links.table] = "\n".join(_links(schema, table, schema_map[links.parent], links, types))
        if table.stats is not None and not table.counters:
            made[table.stats_place[0]] = "\n".join(_stats(schema, table, table.stats, types))
    return made


def _columns(schema_map: SchemaMap, table: TableMap, types: Mapping[tuple[str, str], str]) -> dict[str, str]:
    declared = {column.name: column.type for column in table.columns}
    return {
        name: kind or declared.get(name) or types.get((table.name, name), "text")
        for name, kind in target_columns(schema_map, table).items()
    } | {
        column.name: column.type
        for other in schema_map
        if other.into == table.name
        for column in other.columns
    }


def _table(
    schema: str,
    schema_map: SchemaMap,
    table: TableMap,
    columns: Mapping[str, str],
    types: Mapping[tuple[str, str], str],
) -> Iterator[str]:
    references = {reference.target_column: reference for reference in table.filled}
    lines: list[str] = []
    for name, kind in columns.items():
        line = f"{quoted(name)} {kind}"
        reference = references.get(name)
        if (
            name in table.target_key
            or name == table.key_column
            or (reference is not None and reference.required)
        ):
            line += " NOT NULL"
        if reference is not None:
            line += _referring(schema, schema_map[reference.parent], cascade=reference.required)
        lines.append(line)
    lines += [_count(table, stat, types) for stat in table.counters]
    lines.append(f"PRIMARY KEY ({', '.join(quoted(name) for name in table.target_key)})")
    held = [
        (schema_map[each.parent], table.held(each, schema_map[each.parent]))
        for each in table.references
        if not each.fills
    ]
    for parent, here in held:
        there = ", ".join(quoted(name) for name in parent.target_key)
        named = ", ".join(quoted(name) for name in here)
        place = f"{quoted(schema)}.{quoted(parent.name)}"
        lines.append(f"FOREIGN KEY ({named}) REFERENCES {place} ({there}) ON DELETE CASCADE")
    yield _create(schema, table.name, lines)
    for _, here in held:
        if here != table.target_key[: len(here)]:
            named = ", ".join(quoted(name) for name in here)
            yield f"CREATE INDEX ON {quoted(schema)}.{quoted(table.name)} ({named});"
    # Deletes find children by these, and the primary key finds those of its first column already.
    for name in references:
        if name != table.target_key[0]:
            yield f"CREATE INDEX ON {quoted(schema)}.{quoted(table.name)} ({quoted(name)});"


def _links(
    schema: str, table: TableMap, parent: TableMap, links: Links, types: Mapping[tuple[str, str], str]
) -> Iterator[str]:
    lines = [
        f"{quoted(name)} {end.id_type.name} NOT NULL{_referring(schema, end, cascade=True)}"
        for name, end in ((links.owner, table), (links.member, parent))
    ]
    if links.position is not None:
        lines.append(f"{quoted(links.position)} integer NOT NULL")
    lines += [f"{quoted(name)} {types.get((links.table, name), 'text')}" for name in links.columns]
    lines.append(f"PRIMARY KEY ({quoted(links.owner)}, {quoted(links.member)})")
    yield _create(schema, links.table, lines)
    yield f"CREATE INDEX ON {quoted(schema)}.{quoted(links.table)} ({quoted(links.member)});"


def _stats(
    schema: str,
    table: TableMap,
    stats: Stats,
    types: Mapping[tuple[str, str], str],
) -> Iterator[str]:
    name, column = table.stats_place
    owner = f"{quoted(column)} {table.id_type.name} PRIMARY KEY"
    lines = [f"{owner}{_referring(schema, table, cascade=True)}"]
    lines += [_count(table, stat, types) for stat in stats.columns]
    yield _create(schema, name, lines)


def _count(table: TableMap, stat: Stat, types: Mapping[tuple[str, str], str]) -> str:
    count = stat.value == "count(*)"
    kind = "bigint" if count else types.get((table.stats_place[0], stat.column), "double precision")
    return f"{quoted(stat.column)} {kind}" + (" NOT NULL DEFAULT 0" if count else "")


def _referring(schema: str, parent: TableMap, *, cascade: bool) -> str:
    if not parent.identified:
        return ""
    rule = "CASCADE" if cascade else "SET NULL"
    return f" REFERENCES {quoted(schema)}.{quoted(parent.name)} ({quoted(parent.id_column)}) ON DELETE {rule}"


def _create(schema: str, name: str, lines: list[str]) -> str:
    listed = ",\n    ".join(lines)
    return f"CREATE TABLE {quoted(schema)}.{quoted(name)} (\n    {listed}\n);"
