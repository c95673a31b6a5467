"""The catalog of one schema: what its tables are made of, as far as capture and the engine care."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from syncline.sql import statements_of
from syncline.stores.tenants import reading

__all__ = [
    "Catalog",
    "ColumnState",
    "FunctionState",
    "IndexState",
    "RoleState",
    "SharedState",
    "TableState",
    "TriggerState",
    "read_catalog",
]

_sql = statements_of("syncline.capture.install")


@dataclass(frozen=True, kw_only=True)
class ColumnState:
    """A column. Its type is as Postgres spells it, without length; a domain's is its base type."""

    name: str
    type: str
    enum: bool
    not_null: bool
    default: str | None
    filled: bool
    """Whether it has a value where an INSERT gives none: by default, by identity or by generation."""


@dataclass(frozen=True, kw_only=True)
class TriggerState:
    """A trigger. `kind` is pg_trigger.tgtype: row or statement, before or after, and of what."""

    name: str
    kind: int
    enabled: bool
    always: bool
    """Whether it fires in sessions with `session_replication_role = replica` too."""
    conditional: bool
    """Whether it has a WHEN condition or a list of columns."""
    old_table: str | None
    of_its_own: bool
    """Whether it is not a partition's copy of its table's trigger, which goes and comes with that one."""
    function: tuple[str, str]
    """Schema and name."""


@dataclass(frozen=True, kw_only=True)
class IndexState:
    """An index. Only a `plain` one serves: btree, ascending, default operators, no condition, immediate."""

    name: str
    valid: bool
    unique: bool
    plain: bool
    keys: tuple[tuple[str, str | None], ...]
    """Column and collation of each key part; an expression has the empty name."""


@dataclass(frozen=True, kw_only=True)
class FunctionState:
    """A function as far as it can differ from ours: its body, its rights and its search_path."""

    body: str
    definer: bool
    configuration: tuple[str, ...]
    owner: str | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True)
class TableState:
    """A relation that has columns. `kind` is a person's word: `table`, `partitioned table`, `view`."""

    oid: int
    schema: str
    name: str
    owner: str
    kind: str
    stores: bool
    """Whether it is a table with rows of its own."""
    columns: Mapping[str, ColumnState]
    triggers: Mapping[str, TriggerState]
    indexes: tuple[IndexState, ...]
    filtered: bool = False
    """Whether row level security hides rows of it from the role that looked."""
    leaves: tuple["TableState", ...] = ()
    """The partitions that hold the rows of a partitioned table."""

    @property
    def partitioned(self) -> bool:
        """Whether its rows are in partitions."""
        return self.kind == "partitioned table"

    def is_unique(self, columns: Collection[str]) -> bool:
        """Whether a unique index, such as the primary key's, is on exactly these columns."""
        return any(
            index.unique and index.valid and index.plain and {name for name, _ in index.keys} == set(columns)
            for index in self.indexes
        )


@dataclass(frozen=True, kw_only=True)
class RoleState:
    """A role that owns something of a schema or of what all schemas share, as whoever asks sees it."""

    name: str
    superuser: bool
    self: bool
    """Whether it is the one who asks."""
    database_owner: bool
    may_become: bool
    """Whether who asks may act as it."""
    held_by_schema_owner: bool
    """Whether the owner of the schema has its rights anyway."""
    may_create: bool
    """Whether it may create in the schema."""
    owns_schema: bool


@dataclass(frozen=True, kw_only=True)
class SharedState:
    """A relation of schema `syncline`."""

    owner: str
    stores: bool
    """Whether it is an ordinary table."""


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """One schema, and of schema `syncline` what capture shares between graphs."""

    schema: str
    tables: Mapping[str, TableState]
    names: frozenset[tuple[str, str]]
    """Schema and name of everything that could be in a new table's or index's way."""
    functions: Mapping[tuple[str, str], FunctionState]
    role: str = ""
    """The role that looked."""
    roles: Mapping[str, RoleState] = field(default_factory=dict)
    """The owners of all of this, by their names."""
    owner: str | None = None
    """Of the schema; None if there is none."""
    shared_owner: str | None = None
    """Of schema `syncline`; None if there is none."""
    listener: SharedState | None = None
    """The table in which the worker says that it listens."""
    types: Mapping[str, str | None] = field(default_factory=dict)
    """How Postgres spells each type that was asked for; None for one that this database does not have."""


async def read_catalog(
    connection: asyncpg.Connection, schema: str, *, types: Collection[str] = ()
) -> Catalog:
    """Read the catalog of `schema`; one that does not exist is empty. The connection is in no transaction."""
    # One snapshot; no operator of the schema's own is found by these queries.
    async with reading(connection, one_moment=True):
        relations = await connection.fetch(_sql("relations"), schema)
        oids = [row["oid"] for row in relations]
        columns = await connection.fetch(_sql("columns"), oids, schema)
        triggers = await connection.fetch(_sql("triggers"), oids)
        indexes = await connection.fetch(_sql("indexes"), oids)
        functions = await connection.fetch(_sql("functions"), schema)
        names = await connection.fetch(_sql("names"), oids)
        listener = await connection.fetchrow(_sql("listener_state"))
        owners = await connection.fetch(_sql("schema_owners"), schema)
        roles = await connection.fetch(_sql("roles"), schema, oids)
        spelled = await connection.fetch(_sql("types"), list(types), schema)
    by_table: dict[int, tuple[dict[str, ColumnState], dict[str, TriggerState], list[IndexState]]]
    by_table = {oid: ({}, {}, []) for oid in oids}
    for row in columns:
        by_table[row["relation"]][0][row["name"]] = ColumnState(**_without_relation(row))
    for row in triggers:
        function = (row["function_schema"], row["function_name"])
        state = {
            key: row[key]
            for key in ("name", "kind", "enabled", "always", "conditional", "old_table", "of_its_own")
        }
        by_table[row["relation"]][1][row["name"]] = TriggerState(**state, function=function)
    for row in indexes:
        keys = tuple(zip(row["columns"], row["collations"], strict=True))
        found = {key: row[key] for key in ("name", "valid", "unique", "plain")}
        by_table[row["relation"]][2].append(IndexState(**found, keys=keys))

    def table(row: asyncpg.Record) -> TableState:
        found = by_table[row["oid"]]
        return TableState(
            **{key: row[key] for key in ("oid", "schema", "name", "owner", "kind", "stores", "filtered")},
            columns=found[0],
            triggers=found[1],
            indexes=tuple(found[2]),
            leaves=tuple(table(leaf) for leaf in relations if row["oid"] in leaf["roots"]),
        )

    return Catalog(
        schema=schema,
        tables={row["name"]: table(row) for row in relations if row["schema"] == schema},
        names=frozenset((row["schema"], row["name"]) for row in names),
        functions={
            (row["schema"], row["name"]): FunctionState(
                body=row["body"],
                definer=row["definer"],
                configuration=tuple(row["configuration"]),
                owner=row["owner"],
            )
            for row in functions
        },
        role=next((row["role"] for row in relations), ""),
        roles={row["name"]: RoleState(**row) for row in roles},
        owner=next((row["owner"] for row in owners if row["schema"] == schema), None),
        shared_owner=next((row["owner"] for row in owners if row["schema"] != schema), None),
        listener=None if listener is None else SharedState(**listener),
        types={row["asked"]: row["spelled"] for row in spelled},
    )


def _without_relation(row: asyncpg.Record) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "relation"}
