"""Readers of the vector store: the aliases that they query lead to the collections of the live graph."""

from collections.abc import Sequence

from syncline.control.graphs import Graph
from syncline.control.services import Services
from syncline.engine.table_map import SchemaMap
from syncline.shadow.prepare import live_generation

__all__ = ["lead_readers"]


async def lead_readers(services: Services, graph: Graph, schema_map: SchemaMap) -> Sequence[str]:
    """Make the graph's aliases lead to its collections, all at once; return those that did not.

    A collection without points is made if it is missing, since an alias cannot lead to nothing. None move
    while it is not recorded what the graph's vectors are made with: then there are none.
    Raises VectorStoreError.
    """
    tables = [table.vector for table in schema_map if table.vector is not None]
    if not tables:
        return ()
    generation = await live_generation(services.target_schema(graph), graph.slug)
    record = await services.embedding_records.get(graph.id, generation)
    if record is None or record.dimensions is None:
        return ()
    vectors = services.graph_vectors(graph).of_generation(generation)
    present = await vectors.store.aliases()
    wanted = {vectors.alias(table.collection): vectors.collection(table.collection) for table in tables}
    elsewhere = {alias: place for alias, place in wanted.items() if present.get(alias) != place}
    if not elsewhere:
        return ()
    for table in tables:
        await vectors.store.ensure_collection(
            vectors.collection(table.collection),
            dimensions=record.dimensions,
            indexed=table.indexed,
            options=vectors.options,
        )
    await vectors.store.set_aliases(elsewhere)
    return tuple(elsewhere)
