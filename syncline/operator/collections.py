"""Dropping collections of a graph: what there is, and its end, written down before."""

from collections.abc import Sequence

from syncline import names
from syncline.control.audit import Actor
from syncline.control.graphs import Graph
from syncline.control.services import Services
from syncline.engine.table_map import SchemaMap
from syncline.errors import InputInvalid
from syncline.messages.base import GraphStatus
from syncline.messages.operator import CollectionsDropped, CollectionToDrop
from syncline.operator.schema import acting, sql
from syncline.operator.second_model import main_vectors

__all__ = ["drop_collections"]


async def drop_collections(
    services: Services,
    graph: Graph,
    schema_map: SchemaMap,
    *,
    shadow: bool = False,
    named: Sequence[str] = (),
    actor: Actor | None,
) -> CollectionsDropped:
    """Drop the named collections of a graph, or all, and return them; without an actor drop nothing.

    While its embedding model changes, those of both generations. Raise InputInvalid for a name that the map
    has not. It is audited before the first is dropped; a repeated call drops what is left. A graph that is
    synced gets them again by its next cycle.
    """
    vectors, generations = await main_vectors(services, graph, shadow=shadow)
    known = [table.vector.collection for table in schema_map if table.vector is not None]
    unknown = sorted(set(named) - set(known))
    if unknown:
        raise InputInvalid(
            f"Graph '{graph.slug}' has no collection {', '.join(unknown)}. "
            f"It has {', '.join(known) or 'none'}."
        )
    picked = [name for name in known if not named or name in named]
    chosen = [vectors.collection(name) for name in picked]
    entries = list(picked)
    if generations.second is not None:
        others = vectors.of_generation(generations.second.generation)
        chosen += [others.collection(name) for name in picked]
        entries += map(names.second_collection, picked)
    found = [CollectionToDrop(name=name, points=await vectors.store.count(name)) for name in chosen]
    if actor is not None and chosen:
        await services.graphs.audit(graph, "drop-collections", actor, fields=chosen)
        for name in chosen:
            await vectors.store.drop_collection(name)
        async with acting(services.target_schema(graph, shadow=shadow)) as connection:
            await connection.execute(sql("collections_missed"), entries)
    return CollectionsDropped(
        store=vectors.store.name,
        collections=tuple(found),
        dropped=actor is not None,
        made_again=graph.status is not GraphStatus.ARCHIVED,
    )
