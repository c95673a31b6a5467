"""The rights of all roles as SQL, database by database: what a person reviews, then runs as an administrator.

What a right is about need not be there yet: before `syncline migrate` few objects are. So what is found is
granted, and the owner's default privileges see to what comes later.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

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

__all__ = ["Database", "Places", "Roles", "grants"]

_sql = statements_of("syncline.rights", comments=True)

_TAGS: Final = [f"$syncline{number or ''}$" for number in range(1_000)]


@dataclass(frozen=True, kw_only=True)
class Roles:
    """Who gets rights: roles that exist. Whoever is None is left out."""

    worker: str
    writer: str | None = None
    owner: str | None = None
    """Who migrates and adopts: the schemas and all that is in them belong to it."""
    reader: str | None = None
    creates: bool = False
    """Whether the worker may act as the owner: to add graphs, to make and promote shadows."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """The graphs' schemas, by key of the store; None is the system's."""

    write: Mapping[str | None, Sequence[Place]]
    graph: Mapping[str | None, Sequence[Place]]


@dataclass(frozen=True, kw_only=True)
class Database:
    """One database, and what is to be run there by an administrator. Again it changes nothing."""

    name: str
    setting: str
    """The setting of the workers that says where it is."""
    sql: str


def grants(roles: Roles, places: Places) -> Iterator[Database]:
    """Yield the databases that workers use, each with the SQL that gives the roles what they need there."""
    for key, here in places.write.items():
        yield _database("write-db", "SYNCLINE_WRITE_DSN", key, _write(roles, here))
    for key, here in places.graph.items():
        yield _database("graph-db", "SYNCLINE_GRAPH_DSN", key, _graph(roles, here))
    setting = "SYNCLINE_CONTROL_DSN; where that is not set, the same database as the graph-db"
    yield _database("control plane", setting, None, _control(roles))


def _database(name: str, setting: str, key: str | None, statements: Iterator[str]) -> Database:
    # Names are found in pg_catalog alone: who may create in another schema of the path would be called.
    sql = "\n".join(["SET search_path = pg_catalog, pg_temp;", *statements, "RESET search_path;"])
    if key is None:
        return Database(name=name, setting=setting, sql=sql)
    return Database(name=f"{name} {key}", setting=f"key '{key}' of SYNCLINE_STORES", sql=sql)


def _write(roles: Roles, places: Sequence[Place]) -> Iterator[str]:
    yield from _owned(roles, [CONTROL_SCHEMA, *(place.schema for place in places)])
    yield _granted(
        (roles.owner, owner_rights()),
        (roles.worker, worker_write_rights(places)),
        (roles.writer, writer_rights(places)),
    )
    yield _sql("statistics", worker=quoted(roles.worker))
    for place in places:
        yield from _later(roles, place.schema, {"TABLES": READ})


def _graph(roles: Roles, places: Sequence[Place]) -> Iterator[str]:
    yield from _owned(roles, [CONTROL_SCHEMA, *(place.schema for place in places)])
    yield _granted(
        (roles.owner, owner_rights()),
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
    """Yield what gives the worker rights on what the owner makes later."""
    if roles.owner is None:
        return
    for what, names in privileges.items():
        yield _sql(
            "later",
            owner=quoted(roles.owner),
            schema=quoted(schema),
            privileges=", ".join(names),
            what=what,
            worker=quoted(roles.worker),
        )


def _granted(*rights: tuple[str | None, Iterable[Right]]) -> str:
    """Return one statement that grants each role all of its rights; each group says what it is for."""
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
    # A name may be anything, the tag that ends the block too.
    tag = next(tag for tag in _TAGS if not any(tag in fragment for fragment in fragments.values()))
    return _sql(name, **fragments, tag=tag)
