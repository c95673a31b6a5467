"""Grants on objects that a worker created as the owner: its own role gets what it needs, no more."""

import asyncio
from collections.abc import Iterable

import asyncpg

from syncline.control.graphs import Graph
from syncline.engine.table_map import SchemaMap
from syncline.provider import GraphSchema
from syncline.rights.graphs import read_place
from syncline.rights.missing import missing_rights
from syncline.rights.needed import Place, Right, worker_graph_rights, worker_write_rights
from syncline.sql import quoted

__all__ = ["take_rights"]

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
