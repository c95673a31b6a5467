"""Missing privileges: which of the needed ones a role lacks, with one query per store; and their grant."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import asyncpg

from syncline.control.graphs import Graph
from syncline.engine.table_map import SchemaMap
from syncline.provider import GraphSchema
from syncline.rights.databases import read_place
from syncline.rights.needed import Kind, Place, Right, grant, worker_graph_rights, worker_write_rights
from syncline.sql import quoted, statements_of

__all__ = ["Missing", "missing_rights", "take_rights"]

_sql = statements_of("syncline.rights")


@dataclass(frozen=True, kw_only=True)
class Missing:
    """Privileges on one object that the role of a connection lacks."""

    kind: Kind
    place: str
    """The object's name, quoted."""
    privileges: tuple[str, ...]
    role: str

    @property
    def grant(self) -> str:
        """The GRANT that fixes it."""
        return grant(self.kind, self.privileges, self.place, self.role)

    def __str__(self) -> str:
        """Return it in words."""
        if self.kind == "role":
            return f"membership in {self.place}"
        return f"{', '.join(self.privileges)} on {self.kind} {self.place}"


async def missing_rights(connection: asyncpg.Connection, needed: Iterable[Right]) -> Sequence[Missing]:
    """Return what the connection's role lacks, object by object. Missing objects are skipped."""
    wanted = [
        (right.kind, right.schema, name, right.ours, privilege)
        for right in needed
        for name in (right.names if right.names is not None else (None,))
        for privilege in right.privileges
    ]
    columns = [list(column) for column in zip(*wanted, strict=True)]
    role = await connection.fetchval("SELECT current_user::text")
    rows = await connection.fetch(_sql("missing"), *columns)
    return [
        Missing(kind=kind, place=place, privileges=tuple(row["privilege"] for row in found), role=role)
        for (kind, place), found in groupby(rows, key=lambda row: (row["kind"], row["place"]))
    ]


_GRANTED_BY_OWNERS = ("schema", "table", "sequence")


async def take_rights(
    graph: Graph,
    *,
    target: GraphSchema,
    write: GraphSchema | None = None,
    schema_map: SchemaMap | None = None,
) -> None:
    """Grant the connections' role what it lacks in these schemas of the graph or its shadow.

    `schema_map` is the stored map of the graph, if it has one.

    Only where it may act as the owner, SYNCLINE_OWNER_ROLE. Objects of other roles are unchanged: `doctor`
    then reports what is missing.
    """
    taken = [_take(target, worker_graph_rights([Place(schema=target.schema)]))]
    if write is not None:
        taken.append(_take(write, worker_write_rights([read_place(graph, schema_map)])))
    await asyncio.gather(*taken)


async def _take(place: GraphSchema, rights: Iterable[Right]) -> None:
    owner = place.store.owner_role
    if owner is None:
        return
    wanted = [right for right in rights if right.kind in _GRANTED_BY_OWNERS]
    async with place.store.driver() as connection, connection.transaction():
        missing = await missing_rights(connection, wanted)
        if not missing:
            return
        await connection.execute(f"SET LOCAL ROLE {quoted(owner)}")
        for right in missing:
            try:
                async with connection.transaction():
                    await connection.execute(right.grant)
            except asyncpg.InsufficientPrivilegeError:
                continue
