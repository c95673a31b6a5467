"""Catalog for maps: columns with their types in full, and the keys between tables."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import asyncpg

from syncline.operator.schema import sql

__all__ = ["MapColumn", "MapTable", "ParentKey", "read_map_tables", "table_names"]


@dataclass(frozen=True, kw_only=True)
class MapColumn:
    """A column; `type` is as Postgres spells it, with its length."""

    name: str
    type: str
    not_null: bool
    generated: bool
    """Whether it is computed from other columns."""
    identity_always: bool
    numbered: bool
    """Whether its values come from a sequence."""
    longest: int
    """Most characters of a value; 0 if there is no limit."""


@dataclass(frozen=True, kw_only=True)
class ParentKey:
    """A foreign key."""

    columns: tuple[str, ...]
    parent: str
    parent_columns: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class MapTable:
    """A table of a schema."""

    name: str
    stores: bool
    """Whether rows can be written to it: it is no view and no foreign table."""
    columns: Mapping[str, MapColumn]
    key: tuple[str, ...] = ()
    """The primary key."""
    unique: tuple[tuple[str, ...], ...] = ()
    parents: tuple[ParentKey, ...] = ()

    def parent_of(self, column: str) -> ParentKey | None:
        """Return the foreign key of this column alone."""
        return next((key for key in self.parents if key.columns == (column,)), None)


@dataclass
class _Keys:
    key: tuple[str, ...] = ()
    unique: list[tuple[str, ...]] = field(default_factory=list)
    parents: list[ParentKey] = field(default_factory=list)


async def table_names(connection: asyncpg.Connection, schema: str) -> list[str]:
    """Return the names of the schema's tables, without the engine's and without partitions."""
    return [row["name"] for row in await connection.fetch(sql("map_tables"), schema)]


async def read_map_tables(
    connection: asyncpg.Connection, schema: str, names: Sequence[str]
) -> dict[str, MapTable]:
    """Return those of the tables that there are."""
    columns: defaultdict[str, dict[str, MapColumn]] = defaultdict(dict)
    stores: dict[str, bool] = {}
    for row in await connection.fetch(sql("map_columns"), schema, list(names)):
        stores[row["table_name"]] = row["stores"]
        told = {key: value for key, value in row.items() if key not in ("table_name", "stores")}
        columns[row["table_name"]][row["name"]] = MapColumn(**told)
    keys: defaultdict[str, _Keys] = defaultdict(_Keys)
    for row in await connection.fetch(sql("map_constraints"), schema, list(names)):
        found = keys[row["table_name"]]
        of = tuple(row["columns"])
        match row["kind"]:
            case b"p":
                found.key = of
            case b"u":
                found.unique.append(of)
            case _:
                parents = tuple(row["parent_columns"])
                found.parents.append(ParentKey(columns=of, parent=row["parent"], parent_columns=parents))
    return {
        name: MapTable(
            name=name,
            stores=stores[name],
            columns=columns[name],
            key=keys[name].key,
            unique=tuple(keys[name].unique),
            parents=tuple(keys[name].parents),
        )
        for name in stores
    }
