"""Catalog: reads what capture and the engine need to know about the tables of one schema."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

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
    """A column. Its type is as Postgres spells it, without length; for a domain, the base type."""

    name: str
    type: str
    enum: bool
    domain: bool
    not_null: bool
    default: str | None
    filled: bool
    """Whether an INSERT may omit it: it has a default, is an identity or is generated."""
    number: int = 0
    """Its place in the table: it stays when the column is renamed, and is never given again."""
    full_type: str = ""
    """Its type with length or digits; a domain's base type without."""
    generated: bool = False
    """Whether Postgres computes it from other columns."""
    uncompressed: bool = False
    """Whether long values are stored as they are, beside the row."""


@dataclass(frozen=True, kw_only=True)
class TriggerState:
    """A trigger. `kind` is pg_trigger.tgtype: row or statement, before or after, and of what."""

    name: str
    kind: int
    enabled: bool
    always: bool
    """Whether it also fires in sessions with `session_replication_role = replica`."""
    conditional: bool
    """Whether it has a WHEN condition or a list of columns."""
    condition: str | None
    """The WHEN condition of one without such a list, as Postgres prints it."""
    old_table: str | None
    of_its_own: bool
    """Whether it was created on this table, not cloned from the partitioned table's trigger."""
    function: tuple[str, str]
    """Schema and name."""


@dataclass(frozen=True, kw_only=True)
class IndexState:
    """An index. Usable only if `plain`: btree, ascending, default operators, no condition, immediate."""

    name: str
    valid: bool
    unique: bool
    plain: bool
    keys: tuple[tuple[str, str | None], ...]
    """Column and collation of each key part; an expression has an empty name."""


@dataclass(frozen=True, kw_only=True)
class FunctionState:
    """A function, as far as it may differ from ours: body, privileges and search_path."""

    body: str
    definer: bool
    configuration: tuple[str, ...]
    owner: str | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True)
class TableState:
    """A relation with columns. `kind` is a readable word: `table`, `partitioned table`, `view`."""

    oid: int
    schema: str
    name: str
    owner: str
    kind: str
    stores: bool
    """Whether it is a table that stores rows itself."""
    columns: Mapping[str, ColumnState]
    triggers: Mapping[str, TriggerState]
    indexes: tuple[IndexState, ...]
    filtered: bool = False
    """Whether row level security hides its rows from the role that reads the catalog."""
    shape: str = ""
    """Hash of its columns: it changes with every column that is added, renamed, changed or dropped."""
    leaves: tuple["TableState", ...] = ()
    """The partitions that store a partitioned table's rows."""

    @property
    def partitioned(self) -> bool:
        """Whether its rows are in partitions."""
        return self.kind == "partitioned table"

    def is_unique(self, columns: Collection[str]) -> bool:
        """Whether a unique index, such as the primary key's, covers exactly these columns."""
        return any(
            index.unique and index.valid and index.plain and {name for name, _ in index.keys} == set(columns)
            for index in self.indexes
        )


@dataclass(frozen=True, kw_only=True)
class RoleState:
    """A role that owns objects of the schema or of schema `syncline`, as seen by the current role."""

    name: str
    superuser: bool
    self: bool
    """Whether it is the current role."""
    database_owner: bool
    may_become: bool
    """Whether the current role may act as it."""
    held_by_schema_owner: bool
    """Whether the schema's owner has its privileges anyway."""
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
    """One schema, and the parts of schema `syncline` that graphs share."""

    schema: str
    tables: Mapping[str, TableState]
    names: frozenset[tuple[str, str]]
    """(schema, name) of everything that could conflict with a new table or index."""
    functions: Mapping[tuple[str, str], FunctionState]
    role: str = ""
    """The role that read the catalog."""
    roles: Mapping[str, RoleState] = field(default_factory=dict)
    """Name -> owner of any of these objects."""
    owner: str | None = None
    """The schema's owner; None if there is no schema."""
    shared_owner: str | None = None
    """The owner of schema `syncline`; None if there is none."""
    listener: SharedState | None = None
    """The table in which workers register that they listen."""
    token: FunctionState | None = None
    """The function by which writers name their transaction."""
    types: Mapping[str, str | None] = field(default_factory=dict)
    """How Postgres spells each requested type; None for a type that this database lacks."""

    def lacks(self, table: str) -> bool:
        """Whether the bookkeeping is that of an earlier version, without this table; not if there is none."""
        return _STATE in self.tables and table not in self.tables


_STATE: Final = "sync_state"


async def read_catalog(
    connection: asyncpg.Connection, schema: str, *, types: Collection[str] = ()
) -> Catalog:
    """Read the catalog of `schema`; a missing schema is empty. The connection must be in no transaction."""
    # One snapshot; these queries use none of the schema's own operators.
    async with reading(connection, one_moment=True):
        relations = await connection.fetch(_sql("relations"), schema)
        oids = [row["oid"] for row in relations]
        columns = await connection.fetch(_sql("columns"), oids, schema)
        triggers = await connection.fetch(_sql("triggers"), oids)
        indexes = await connection.fetch(_sql("indexes"), oids)
        functions = await connection.fetch(_sql("functions"), schema)
        names = await connection.fetch(_sql("names"), oids)
        listener = await connection.fetchrow(_sql("listener_state"))
        token = await connection.fetchrow(_sql("token_state"))
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
            for key in (
                "name",
                "kind",
                "enabled",
                "always",
                "conditional",
                "condition",
                "old_table",
                "of_its_own",
            )
        }
        by_table[row["relation"]][1][row["name"]] = TriggerState(**state, function=function)
    for row in indexes:
        keys = tuple(zip(row["columns"], row["collations"], strict=True))
        found = {key: row[key] for key in ("name", "valid", "unique", "plain")}
        by_table[row["relation"]][2].append(IndexState(**found, keys=keys))

    def table(row: asyncpg.Record) -> TableState:
        found = by_table[row["oid"]]
        return TableState(
            **{
                key: row[key]
                for key in ("oid", "schema", "name", "owner", "kind", "stores", "filtered", "shape")
            },
            columns=found[0],
            triggers=found[1],
            indexes=tuple(found[2]),
            leaves=tuple(table(leaf) for leaf in relations if row["oid"] in leaf["roots"]),
        )

    return Catalog(
        schema=schema,
        tables={row["name"]: table(row) for row in relations if row["schema"] == schema},
        names=frozenset((row["schema"], row["name"]) for row in names),
        functions={(row["schema"], row["name"]): _function(row) for row in functions},
        role=next((row["role"] for row in relations), ""),
        roles={row["name"]: RoleState(**row) for row in roles},
        owner=next((row["owner"] for row in owners if row["schema"] == schema), None),
        shared_owner=next((row["owner"] for row in owners if row["schema"] != schema), None),
        listener=None if listener is None else SharedState(**listener),
        token=None if token is None else _function(token),
        types={row["asked"]: row["spelled"] for row in spelled},
    )


def _function(row: asyncpg.Record) -> FunctionState:
    return FunctionState(
        body=row["body"],
        definer=row["definer"],
        configuration=tuple(row["configuration"]),
        owner=row["owner"],
    )


def _without_relation(row: asyncpg.Record) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "relation"}
