"""Where graphs live, as rights are about it: by their records, and by the table map where it is known."""

from collections.abc import Iterable

from syncline import names
from syncline.control.composition import declared_provider
from syncline.control.graphs import Graph
from syncline.engine.knowledge_graph import KNOWLEDGE_GRAPH
from syncline.rights.databases import Places
from syncline.rights.needed import Place

__all__ = ["places_of", "read_place"]


def places_of(graphs: Iterable[Graph]) -> Places:
    """Return the graphs' schemas in both kinds of stores; the system's stores are among them always."""
    write: dict[str | None, list[Place]] = {None: []}
    target: dict[str | None, list[Place]] = {None: []}
    for graph in graphs:
        write.setdefault(graph.write_store, []).append(read_place(graph))
        target.setdefault(graph.graph_store, []).append(Place(schema=graph.schema_name))
    return Places(write=write, graph=target)


def read_place(graph: Graph) -> Place:
    """Return the graph's schema in its write-db, with the tables that are read if the built-in map says it.

    What a plugin reads of the schema, only the plugin knows.
    """
    provider = declared_provider(graph.slug, graph.composition, "sync")
    if provider not in (None, names.DEFAULT_PROVIDER):
        return Place(schema=graph.schema_name)
    return Place(schema=graph.schema_name, tables=tuple(table.source for table in KNOWLEDGE_GRAPH))
