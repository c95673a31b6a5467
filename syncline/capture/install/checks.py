"""Checks: compares the tables of a schema with a table map and reports all problems at once.

One module because every problem names its line of the map, and the statement that mends it, in the same way.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, TypedDict

from syncline.capture.install.catalog import Catalog, ColumnState, TableState
from syncline.capture.install.kept_checks import kept_problems
from syncline.capture.install.link_checks import link_problems
from syncline.capture.install.misfit import Misfit
from syncline.capture.install.ownership import filtered_bookkeeping, filtered_problem
from syncline.capture.install.plan import misses_changes
from syncline.capture.install.steps import POSITIONS, STATE, SYNC_COLUMN, TOMBSTONES, qualified
from syncline.capture.install.triggers import is_ours
from syncline.engine.render.fragments import column_types, source_names
from syncline.engine.render.merge import EQUAL_IS_SAME
from syncline.engine.table_map import SchemaMap, TableMap
from syncline.maps.ids import Id, IdRule
from syncline.maps.into import written_beside
from syncline.sql import quoted

__all__ = [
    "UUID",
    "check_source",
    "check_target",
    "source_columns",
    "source_keys",
    "source_tenants",
    "target_columns",
    "types_of",
    "uncaptured",
]

UUID = "uuid"


def source_keys(schema_map: SchemaMap) -> dict[str, tuple[str, ...]]:
    """Return source table -> key; if two maps use one table, the first one's."""
    keys: dict[str, tuple[str, ...]] = {}
    for table in schema_map:
        keys.setdefault(table.source, table.key)
    return keys


def source_columns(table: TableMap) -> dict[str, str]:
    """Return the source columns that are copied -> type as spelled in the map."""
    types = column_types(table) | {name: type_.name for name, type_ in table.key_texts.items()}
    tenant = table.of_tenant
    if tenant is not None:
        types = {tenant.column: tenant.type, **types}
    for name in (column for reference in table.references for column in reference.columns):
        types.setdefault(name, table.type_of(name).name)
    return {name: types.get(name, "text") for name in source_names(table)}


def source_tenants(schema_map: Iterable[TableMap]) -> dict[str, str]:
    """Return source table -> the column that says whose a row is, of those that have one."""
    columns = ((table.source, table.tenant_column) for table in schema_map)
    return {source: column for source, column in columns if column is not None}


def target_columns(schema_map: SchemaMap, table: TableMap) -> dict[str, str | None]:
    """Return the target columns that are written -> type; None where an expression determines it."""
    columns: dict[str, str | None] = {}
    if table.identified:
        columns[table.id_column] = table.id_type.name
    if table.key_column is not None:
        columns[table.key_column] = table.key_types[0].name
    columns |= {name: type_.name for name, type_ in table.own_parts.items()}
    columns |= {column.name: column.type for column in table.columns}
    columns |= dict.fromkeys(table.expressions)
    columns |= {
        reference.target_column: schema_map[reference.parent].id_type.name for reference in table.filled
    }
    return columns | ({"sync_version": "bigint", "sync_run": "bigint"} if table.stamps else {})


def types_of(schema_map: SchemaMap) -> frozenset[str]:
    """Return every type as the map, or the engine, spells it."""
    own = {"text", "text[]", "bigint", "boolean", "xid8", "timestamptz", UUID, "uuid[]"}
    spelled = {column.type for table in schema_map for column in table.columns}
    spelled |= {type_ for table in schema_map for type_ in table.staged.values()}
    spelled |= {type_ for table in schema_map for type_ in table.types.values()}
    spelled |= {type_.name for table in schema_map for type_ in (*table.key_texts.values(), table.id_type)}
    spelled |= {table.of_tenant.type for table in schema_map if table.of_tenant is not None}
    return frozenset(own | spelled)


_TRAVELS_AS_TEXT = {"text", "character varying", "character", "name", "citext"}
"""Types whose binary form is their text; so is an enum's."""

_KEYS = {"text", "character varying", "name"}
"""Those of them that order and compare like text, byte by byte under COLLATE "C".

citext treats two texts as one, character(n) pads its values, and an enum cannot be collated.
"""

_OURS = (
    "capture_version",
    "capture_update",
    "capture_delete",
    "capture_key",
    "capture_truncate",
    "capture_notify",
)
_TOMBSTONE_COLUMNS = {
    "seq": "bigint",
    "source_table": "text",
    "key": "text[]",
    "sync_xid": "xid8",
    "deleted_at": "timestamptz",
}
_STATE_COLUMNS = {"wanted": "boolean", "muted_until": "timestamptz"}
_POSITION_COLUMNS = {
    "reader": UUID,
    "branch": UUID,
    "number": "bigint",
    "tokens": "uuid[]",
    "cleared_below": "bigint",
}


def check_source(catalog: Catalog, schema_map: Iterable[TableMap]) -> list[str]:
    """Return a sentence for each problem of the write-db's tables with the map or with capture."""
    return list(dict.fromkeys(_source_problems(catalog, schema_map)))


def check_target(
    catalog: Catalog, schema_map: SchemaMap, tables: Iterable[TableMap] | None = None
) -> list[str]:
    """Return a sentence for each problem of the graph-db's tables with the map, or with `tables` of it."""
    return list(
        dict.fromkeys(_target_problems(catalog, schema_map, schema_map if tables is None else tables))
    )


def uncaptured(catalog: Catalog, tables: Iterable[TableMap]) -> list[str]:
    """Return a sentence for each of the tables whose changes are not captured; they pass `check_source`."""
    return [
        Misfit(
            f"{catalog.schema}.{table.source} is not captured, so changes would be missed: "
            "run `syncline graph adopt` to install capture.",
            **_at(table, "source"),
        )
        for table in tables
        if misses_changes(
            catalog,
            catalog.tables[table.source],
            table.key,
            table.tenant_column,
        )
    ]


def _source_problems(catalog: Catalog, schema_map: Iterable[TableMap]) -> Iterator[str]:
    keys: dict[str, TableMap] = {}
    for table_map in schema_map:
        first = keys.setdefault(table_map.source, table_map)
        if first.key != table_map.key:
            yield Misfit(
                f"{catalog.schema}.{table_map.source} is the source of {first.name} and of {table_map.name}, "
                f"by keys {list(first.key)} and {list(table_map.key)}; give them one key.",
                **_at(table_map, "key"),
            )
        table = catalog.tables.get(table_map.source)
        if table is None:
            yield Misfit(
                f"Table {catalog.schema}.{table_map.source} is missing; {table_map.name} is made from it.",
                **_at(table_map, "source"),
            )
            continue
        name = f"{table.schema}.{table.name}"
        if table.kind not in ("table", "partitioned table"):
            yield Misfit(
                f"{name} is a {table.kind}, whose changes triggers cannot capture; name an ordinary table.",
                **_at(table_map, "source"),
            )
            continue
        for leaf in table.leaves:
            if not leaf.stores:
                yield Misfit(
                    f"{leaf.schema}.{leaf.name}, a partition of {name}, is no ordinary table; detach it.",
                    **_at(table_map, "source"),
                    statement=f"ALTER TABLE {qualified(table.schema, table.name)} "
                    f"DETACH PARTITION {qualified(leaf.schema, leaf.name)}",
                )
        for sentence in filtered_problem(catalog, table):
            yield Misfit(sentence, **_at(table_map, "source"))
        yield from _columns(catalog, table, table_map, source_columns(table_map), ours=False)
        yield from _source_key(table, table_map)
        yield from _in_the_way(catalog, table)
    yield from filtered_bookkeeping(catalog)
    own = {TOMBSTONES: _TOMBSTONE_COLUMNS, STATE: _STATE_COLUMNS, POSITIONS: _POSITION_COLUMNS}
    for name, columns in own.items():
        if name in catalog.tables:
            yield from _columns(catalog, catalog.tables[name], None, columns, ours=True)


def _source_key(table: TableState, table_map: TableMap) -> Iterator[str]:
    name = f"{table.schema}.{table.name}"
    for column in (table.columns[each] for each in table_map.key if each in table.columns):
        alter = f"ALTER TABLE {qualified(table.schema, table.name)} ALTER COLUMN {quoted(column.name)}"
        if not column.not_null:
            yield Misfit(
                f"{name}.{column.name} allows NULL and is part of the key; set it NOT NULL.",
                **_at(table_map, "key"),
                statement=f"{alter} SET NOT NULL",
            )
        if _travels_as_text(column) and column.type not in _KEYS:
            yield Misfit(
                f"{name}.{column.name} is {_described(column)}, and keys of {table_map.name} are compared "
                "byte by byte; change it to text or character varying.",
                **_at(table_map, "key"),
                statement=f"{alter} TYPE text",
            )
    tenant = table.columns.get(table_map.tenant_column or "")
    if tenant is not None and _travels_as_text(tenant) and tenant.type not in _KEYS:
        yield Misfit(
            f"{name}.{tenant.name} is {_described(tenant)}, and tenants of {table_map.name} are compared "
            "byte by byte; change it to text or character varying.",
            **_at(table_map, "tenant"),
        )
    if set(table_map.key) <= table.columns.keys() and not _is_unique(table, table_map):
        columns = ", ".join(table_map.key)
        yield Misfit(
            f"{name} has no primary key or unique index on exactly ({columns}); add one.",
            **_at(table_map, "key"),
            statement=_unique(table, table_map.key),
        )


def _is_unique(table: TableState, table_map: TableMap) -> bool:
    """Whether a key is unique, at least among the rows of one tenant."""
    tenant = table_map.tenant_column
    return table.is_unique(table_map.key) or (
        tenant is not None and table.is_unique({tenant, *table_map.key})
    )


def _in_the_way(catalog: Catalog, table: TableState) -> Iterator[str]:
    """Yield objects that have one of our names but are not ours."""
    name = f"{table.schema}.{table.name}"
    alter = f"ALTER TABLE {qualified(table.schema, table.name)}"
    column = table.columns.get(SYNC_COLUMN)
    if column is not None and column.type != "xid8":
        yield Misfit(
            f"{name}.{SYNC_COLUMN} is {_described(column)}, but capture needs xid8; rename or drop it.",
            statement=f"{alter} RENAME COLUMN {quoted(SYNC_COLUMN)} TO {quoted(f'{SYNC_COLUMN}_before')}",
        )
    elif column is not None and not column.not_null:
        yield Misfit(
            f"{name}.{SYNC_COLUMN} allows NULL, but a row without a stamp is never captured; drop it.",
            statement=f"{alter} DROP COLUMN {quoted(SYNC_COLUMN)}",
        )
    for each in (table, *table.leaves):
        for trigger in (each.triggers[name] for name in _OURS if name in each.triggers):
            if not is_ours(trigger.function, catalog.schema):
                yield (
                    f"{each.schema}.{each.name} has a trigger {trigger.name} that calls "
                    f"{'.'.join(trigger.function)}(); rename it, because capture needs the name."
                )


def _target_problems(catalog: Catalog, schema_map: SchemaMap, tables: Iterable[TableMap]) -> Iterator[str]:
    for table_map in tables:
        columns = target_columns(schema_map, table_map)
        columns |= {stat.column: None for stat in table_map.counters}
        columns |= dict.fromkeys(written_beside(schema_map.tables, table_map))
        own = table_map.id_type.name
        owned = table_map.into is None
        yield from _target(catalog, table_map.target, table_map, columns, table_map.target_key, filled=owned)
        yield from _without_row(catalog, table_map)
        yield from _list_of_rows(catalog, schema_map, table_map)
        yield from kept_problems(catalog, schema_map, table_map)
        if table_map.target in catalog.tables and table_map.id is not None:
            yield from _assigned(catalog.tables[table_map.target], table_map, table_map.id)
        for links in table_map.links:
            pair = {links.owner: own, links.member: schema_map[links.parent].id_type.name}
            written = pair | dict.fromkeys(links.columns)
            yield from _target(catalog, links.table, table_map, written, tuple(pair), filled=False)
            yield from link_problems(catalog, table_map, links)
        if table_map.stats is not None and not table_map.counters:
            name, owner = table_map.stats_place
            numbers = {owner: own} | {stat.column: None for stat in table_map.stats.columns}
            yield from _target(catalog, name, table_map, numbers, (owner,), filled=False)


_LIST: Final = "sync_row"


def _list_of_rows(catalog: Catalog, schema_map: SchemaMap, table_map: TableMap) -> Iterator[str]:
    listed = table_map.listed or any(schema_map[parent].listed for parent in table_map.parents)
    if listed and catalog.lacks(_LIST):
        yield Misfit(
            f"Table {catalog.schema}.{_LIST} is missing, which the ids of {table_map.name} need: "
            "run `syncline migrate`.",
            **_at(table_map, "id"),
        )


def _assigned(table: TableState, table_map: TableMap, own: Id) -> Iterator[str]:
    """Yield what keeps a target from assigning ids, or from having one row for a natural key."""
    name = f"{table.schema}.{table.name}"
    column = table.columns.get(table_map.id_column)
    if own.rule is IdRule.ASSIGNED and column is not None and not column.filled:
        uuid = table_map.id_type.name == UUID
        how = "SET DEFAULT gen_random_uuid()" if uuid else "ADD GENERATED BY DEFAULT AS IDENTITY"
        yield Misfit(
            f"{name}.{column.name} has no default, so the target assigns no id; give it one.",
            **_at(table_map, "id"),
            statement=f"ALTER TABLE {qualified(table.schema, table.name)} "
            f"ALTER COLUMN {quoted(column.name)} {how}",
        )
    if own.natural and set(own.natural) <= table.columns.keys() and not table.is_unique(own.natural):
        yield Misfit(
            f"{name} has no unique index on exactly ({', '.join(own.natural)}), the natural key of "
            f"{table_map.name}, so two rows could be meant; add one.",
            **_at(table_map, "id", "natural"),
            statement=_unique(table, own.natural),
        )


def _without_row(catalog: Catalog, table_map: TableMap) -> Iterator[str]:
    """Yield columns that cannot be as they would be without a source row of a table map with `into`."""
    table = catalog.tables.get(table_map.target)
    written = () if table_map.into is None else (column.name for column in table_map.columns)
    for column in (table.columns[name] for name in written if table and name in table.columns):
        if column.not_null and table_map.otherwise.get(column.name, "NULL").strip().upper() == "NULL":
            yield Misfit(
                f"{catalog.schema}.{table_map.target}.{column.name} is NOT NULL, and {table_map.name} writes "
                "NULL for rows without a source row; name a value in `otherwise`, or allow NULL.",
                **_at(table_map, "columns", column.name),
                statement=f"ALTER TABLE {qualified(catalog.schema, table_map.target)} "
                f"ALTER COLUMN {quoted(column.name)} DROP NOT NULL",
            )


def _target(
    catalog: Catalog,
    name: str,
    wanted_by: TableMap,
    columns: Mapping[str, str | None],
    key: tuple[str, ...],
    *,
    filled: bool,
) -> Iterator[str]:
    table = catalog.tables.get(name)
    if table is None:
        yield Misfit(
            f"Table {catalog.schema}.{name} is missing; {wanted_by.name} is stored in it.",
            **_at(wanted_by),
            missing=name,
        )
        return
    if table.kind in ("view", "materialized view", "foreign table"):
        yield Misfit(
            f"{catalog.schema}.{name} is a {table.kind}, and {wanted_by.name} can be stored only in a table.",
            **_at(wanted_by),
        )
        return
    for sentence in filtered_problem(catalog, table):
        yield Misfit(sentence, **_at(wanted_by))
    yield from _columns(catalog, table, wanted_by, columns, ours=True)
    if set(key) <= table.columns.keys() and not table.is_unique(key):
        yield Misfit(
            f"{catalog.schema}.{name} has no primary key or unique index on exactly "
            f"({', '.join(key)}); add one.",
            **_at(wanted_by),
            statement=_unique(table, key),
        )
    for column in (table.columns[each] for each in wanted_by.copied if each in table.columns):
        kind = wanted_by.copied[column.name]
        if name == wanted_by.target and column.domain and kind not in EQUAL_IS_SAME:
            yield Misfit(
                f"{catalog.schema}.{name}.{column.name} is a domain, not to be compared with a plain {kind}; "
                f"change it to {kind}, or write `{{type: {kind}, source: {column.name}}}`.",
                **_at(wanted_by, "columns", column.name),
                statement=f"ALTER TABLE {qualified(table.schema, name)} "
                f"ALTER COLUMN {quoted(column.name)} TYPE {kind}",
            )
    for column in table.columns.values():
        if filled and column.not_null and not column.filled and column.name not in columns:
            yield Misfit(
                f"{catalog.schema}.{name}.{column.name} is NOT NULL without a default, and {wanted_by.name} "
                "does not fill it; give it a default, allow NULL or put it into the map.",
                **_at(wanted_by, "columns"),
                statement=f"ALTER TABLE {qualified(table.schema, name)} "
                f"ALTER COLUMN {quoted(column.name)} DROP NOT NULL",
            )


def _columns(
    catalog: Catalog,
    table: TableState,
    wanted_by: TableMap | None,
    columns: Mapping[str, str | None],
    *,
    ours: bool,
) -> Iterator[str]:
    """Yield columns that are missing or of another type; `wanted_by` None is capture.

    Tables that are `ours` to change get a statement; to others the map should be fitted.
    """
    who = "capture" if wanted_by is None else wanted_by.name
    alter = f"ALTER TABLE {qualified(table.schema, table.name)}"
    for name, wanted in columns.items():
        place = f"{table.schema}.{table.name}.{name}"
        column = table.columns.get(name)
        spelled = None if wanted is None else catalog.types.get(wanted)
        at = _at(wanted_by, *_key_of(wanted_by, name))
        if wanted is not None and spelled is None:
            yield Misfit(
                f"{who} wants {place} to be {wanted}, a type that this database does not have.", **at
            )
        elif column is None:
            of_type = "" if spelled is None else f" as {spelled}"
            add = f"{alter} ADD COLUMN {quoted(name)} {spelled}" if ours and spelled is not None else None
            yield Misfit(
                f"Column {place} is missing; {who} wants it{of_type}: add it.",
                **at,
                statement=add,
                relation=table.name,
                column=name,
            )
        elif spelled is not None and not _fits(column, spelled, written=ours):
            change = f"{alter} ALTER COLUMN {quoted(name)} TYPE {spelled} USING {quoted(name)}::{spelled}"
            yield Misfit(
                f"{place} is {_described(column)}, and {who} wants {spelled}; "
                f"change the column to {spelled}, or the map to {column.type}.",
                **at,
                statement=change if ours else None,
                relation=table.name,
                column=name,
            )


class _Place(TypedDict):
    table: str
    path: tuple[str, ...]


def _at(table_map: TableMap | None, *path: str) -> _Place:
    """Return where in a map a misfit belongs."""
    return {"table": "" if table_map is None else table_map.name, "path": path}


def _key_of(table_map: TableMap | None, name: str) -> tuple[str, ...]:
    """Return the path of the first key of a table map by which a column of this name is there."""
    if table_map is None:
        return ()
    for field in ("columns", "source_only"):
        for column in getattr(table_map, field):
            if name == column.name or name in column.sources:
                return (field, column.name)
    for reference in table_map.references:
        if name in (*reference.sources, reference.target_column):
            return ("references", reference.column)
    for links in table_map.links:
        if name in (links.source, links.owner, links.member):
            return ("links", links.table)
        if name in links.columns:
            return ("links", links.table, "columns", name)
    if name in table_map.expressions:
        return ("expressions", name)
    if name == table_map.tenant_column and name not in table_map.key:
        return ("tenant",)
    if table_map.stats is not None and name in {stat.column for stat in table_map.stats.columns}:
        return ("stats", "columns", name)
    return ("key",) if name in table_map.key else ()


def _unique(table: TableState, columns: Iterable[str]) -> str:
    """Return the statement that makes columns unique, as the primary key where there may be none."""
    place, key = qualified(table.schema, table.name), ", ".join(quoted(name) for name in columns)
    if any(index.unique for index in table.indexes):
        return f"CREATE UNIQUE INDEX ON {place} ({key})"
    return f"ALTER TABLE {place} ADD PRIMARY KEY ({key})"


def _fits(column: ColumnState, wanted: str, *, written: bool) -> bool:
    # Postgres reads an enum as text, and does not write a text as one.
    return column.type == wanted or (
        wanted == "text" and _travels_as_text(column) and not (written and column.enum)
    )


def _travels_as_text(column: ColumnState) -> bool:
    # Where the search_path does not include it, an extension's type is spelled with its schema.
    return column.enum or column.type.rpartition(".")[2] in _TRAVELS_AS_TEXT


def _described(column: ColumnState) -> str:
    return f"{column.type}, an enum" if column.enum else column.type
