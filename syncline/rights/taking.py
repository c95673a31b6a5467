"""Rights on what a worker has made as the owner: it gives its own role those that it needs, and no more."""

import asyncio
from collections.abc import Iterable

import asyncpg

from syncline.graphs import Graph
from syncline.provider import GraphSchema
from syncline.rights.graphs import read_place
from syncline.rights.missing import missing_rights
from syncline.rights.needed import Place, Right, worker_graph_rights, worker_write_rights
from syncline.services import Services
from syncline.sqltext import quoted

__all__ = ["take_rights"]

_GRANTED_BY_OWNERS = ("schema", "table", "sequence")


async def take_rights(services: Services, graph: Graph, *, shadow: bool = False) -> None:
    """Give the connections' role what it lacks in the graph's schemas, or in its shadow's.

    Only where it may act as the owner, SYNCLINE_OWNER_ROLE. What another role owns stays as it is: `doctor`
    names what is missing then.
    """
    target = services.target_schema(graph, shadow=shadow)
    taken = [_take(target, worker_graph_rights([Place(schema=target.schema)]))]
    if not shadow:
        taken.append(_take(services.write_schema(graph), worker_write_rights([read_place(graph)])))
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
