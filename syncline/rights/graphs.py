"""The schemas of graphs, for privileges: from their records, and from the table map where it is known."""

from collections.abc import Iterable

from syncline import names
from syncline.control.composition import declared_provider
from syncline.control.graphs import Graph
from syncline.engine.knowledge_graph import KNOWLEDGE_GRAPH
from syncline.rights.databases import Places
from syncline.rights.needed import Place

__all__ = ["places_of", "read_place"]


def places_of(graphs: Iterable[Graph]) -> Places:
    """Return the graphs' schemas in both kinds of stores; always includes the system's stores."""
    write: dict[str | None, list[Place]] = {None: []}
    target: dict[str | None, list[Place]] = {None: []}
    for graph in graphs:
        write.setdefault(graph.write_store, []).append(read_place(graph))
        target.setdefault(graph.graph_store, []).append(Place(schema=graph.schema_name))
    return Places(write=write, graph=target)


def read_place(graph: Graph) -> Place:
    """Return the graph's write-db schema, with the tables that are read if it has the built-in map.

    Which tables a plugin reads, only the plugin knows.
    """
    provider = declared_provider(graph.slug, graph.composition, "sync")
    if provider not in (None, names.DEFAULT_PROVIDER):
        return Place(schema=graph.schema_name)
    return Place(schema=graph.schema_name, tables=tuple(table.source for table in KNOWLEDGE_GRAPH))
