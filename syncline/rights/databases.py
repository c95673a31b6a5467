"""Grants: the privileges of all roles as SQL for each database, to be reviewed and run by an administrator.

Objects need not exist yet: before `syncline migrate` few do. So existing objects are granted, and the owner's
default privileges cover later ones.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from syncline import names
from syncline.control.composition import declared_provider
from syncline.control.graphs import Graph
from syncline.control.maps import map_options
from syncline.engine.knowledge_graph import KNOWLEDGE_GRAPH
from syncline.engine.table_map import SchemaMap
from syncline.rights.needed import (
    CHANGE,
    CONTROL_SCHEMA,
    READ,
    Place,
    Right,
    owner_rights,
    reader_rights,
    worker_control_rights,
    worker_graph_rights,
    worker_write_rights,
    writer_rights,
)
from syncline.sql import quoted, statements_of, string_literal

__all__ = ["Database", "Places", "Roles", "grants", "places_of", "read_place"]

_sql = statements_of("syncline.rights", comments=True)

_TAGS: Final = [f"$syncline{number or ''}$" for number in range(1_000)]


@dataclass(frozen=True, kw_only=True)
class Roles:
    """The existing roles that get privileges; None omits one."""

    worker: str
    writer: str | None = None
    owner: str | None = None
    """The migrating and adopting role: owns the schemas and everything in them."""
    reader: str | None = None
    creates: bool = False
    """Whether the worker may act as the owner: to add graphs, to create and promote shadows."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """The graphs' schemas, by store key; None is the system's store."""

    write: Mapping[str | None, Sequence[Place]]
    graph: Mapping[str | None, Sequence[Place]]


@dataclass(frozen=True, kw_only=True)
class Database:
    """One database, and the SQL for its administrator. Running it again changes nothing."""

    name: str
    setting: str
    """The workers' setting that locates it."""
    sql: str


def grants(roles: Roles, places: Places) -> Iterator[Database]:
    """Yield the databases that workers use, each with the SQL for the privileges that roles need there."""
    for key, here in places.write.items():
        yield _database("write-db", "SYNCLINE_WRITE_DSN", key, _write(roles, here))
    for key, here in places.graph.items():
        yield _database("graph-db", "SYNCLINE_GRAPH_DSN", key, _graph(roles, here))
    setting = "SYNCLINE_CONTROL_DSN; where that is not set, the same database as the graph-db"
    yield _database("control plane", setting, None, _control(roles))


def _database(name: str, setting: str, key: str | None, statements: Iterator[str]) -> Database:
    # Names resolve in pg_catalog only: a role that may create in another schema of the path could be called.
    sql = "\n".join(["SET search_path = pg_catalog, pg_temp;", *statements, "RESET search_path;"])
    if key is None:
        return Database(name=name, setting=setting, sql=sql)
    return Database(name=f"{name} {key}", setting=f"key '{key}' of SYNCLINE_STORES", sql=sql)


def _write(roles: Roles, places: Sequence[Place]) -> Iterator[str]:
    yield from _owned(roles, [CONTROL_SCHEMA, *(place.schema for place in places)])
    yield _granted(
        (roles.owner, owner_rights(places)),
        (roles.worker, worker_write_rights(places)),
        (roles.writer, writer_rights(places)),
    )
    yield _sql("statistics", worker=quoted(roles.worker))
    for place in places:
        yield from _later(roles, place.schema, {"TABLES": READ})


def _graph(roles: Roles, places: Sequence[Place]) -> Iterator[str]:
    yield from _owned(roles, [CONTROL_SCHEMA, *(place.schema for place in places)])
    yield _granted(
        (roles.owner, owner_rights(places)),
        (roles.worker, worker_graph_rights(places)),
        (roles.reader, reader_rights(places)),
    )
    for place in places:
        yield from _later(roles, place.schema, {"TABLES": CHANGE, "SEQUENCES": ("USAGE",)})


def _control(roles: Roles) -> Iterator[str]:
    yield from _owned(roles, [CONTROL_SCHEMA])
    yield _granted((roles.owner, owner_rights()), (roles.worker, worker_control_rights()))


def _owned(roles: Roles, schemas: Sequence[str]) -> Iterator[str]:
    if roles.owner is None:
        return
    for schema in schemas:
        yield _sql("schema", schema=quoted(schema), owner=quoted(roles.owner))
    if roles.creates:
        yield _block("member", owner=string_literal(roles.owner), worker=string_literal(roles.worker))


def _later(roles: Roles, schema: str, privileges: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield the default privileges of the worker on what the owner creates later."""
    if roles.owner is None:
        return
    for what, granted in privileges.items():
        yield _sql(
            "later",
            owner=quoted(roles.owner),
            schema=quoted(schema),
            privileges=", ".join(granted),
            what=what,
            worker=quoted(roles.worker),
        )


def _granted(*rights: tuple[str | None, Iterable[Right]]) -> str:
    """Return one statement with all privileges of each role; each group has a comment with its purpose."""
    lines: list[str] = []
    for role, those in rights:
        if role is None:
            continue
        for why, group in groupby(those, key=lambda right: right.why):
            lines.append(f"-- {why}")
            lines += [_line(role, right) for right in group]
    last = len(lines) - 1
    listed = [
        line if line.startswith("--") or place == last else f"{line}," for place, line in enumerate(lines)
    ]
    return _block("grant", wanted="\n".join(f"            {line}" for line in listed))


def _line(role: str, right: Right) -> str:
    chosen = right.names if right.names is not None else ("*" if right.ours else "-",)
    fields = (role, ", ".join(right.privileges), right.kind.upper(), right.schema)
    listed = ", ".join(map(string_literal, chosen))
    return f"({', '.join(map(string_literal, fields))}, ARRAY[{listed}])"


def _block(name: str, **fragments: str) -> str:
    # A name may contain anything, even the tag that ends the block.
    tag = next(tag for tag in _TAGS if not any(tag in fragment for fragment in fragments.values()))
    return _sql(name, **fragments, tag=tag)


def places_of(graphs: Iterable[Graph], maps: Mapping[str, SchemaMap] | None = None) -> Places:
    """Return the graphs' schemas in both kinds of stores; always includes the system's stores.

    `maps`: slug -> the stored map of a graph that has one.
    """
    write: dict[str | None, list[Place]] = {None: []}
    target: dict[str | None, list[Place]] = {None: []}
    for graph in graphs:
        place, places = (
            read_place(graph, (maps or {}).get(graph.slug)),
            write.setdefault(graph.write_store, []),
        )
        if place not in places:  # graphs of several tenants share one
            places.append(place)
        target.setdefault(graph.graph_store, []).append(Place(schema=graph.schema_name))
    return Places(write=write, graph=target)


def read_place(graph: Graph, schema_map: SchemaMap | None = None) -> Place:
    """Return the graph's write-db schema, with the tables that are read if they are known.

    They are those of `schema_map`, its stored map, if it names one, else of the built-in map. Which tables a
    plugin reads, only the plugin knows.
    """
    if map_options(graph.composition).map is not None:
        tables = None if schema_map is None else tuple(dict.fromkeys(table.source for table in schema_map))
        return Place(schema=graph.source_schema, tables=tables)
    provider = declared_provider(graph.slug, graph.composition, "sync")
    if provider not in (None, names.DEFAULT_PROVIDER):
        return Place(schema=graph.source_schema)
    return Place(schema=graph.source_schema, tables=tuple(table.source for table in KNOWLEDGE_GRAPH))
